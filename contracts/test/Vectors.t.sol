// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {ITaskBoard} from "../src/ITaskBoard.sol";
import {vm, Vm} from "./Cheats.sol";
import {Board, KEPT, answerOf} from "./Board.sol";

/// @notice The contract keeps to the golden vectors that the Rust bindings are tested with too.
contract VectorsTest is Board {
    string private json;

    function test_ids() public {
        for (uint256 i; i < open("ids"); ++i) {
            uint256 id = number(i, ".id");
            vm.assertEq(id >> 48, number(i, ".domain"), "domain");
            vm.assertTrue((id & KEPT != 0) == vm.parseJsonBool(json, key(i, ".kept")), "kept");
            vm.assertEq(id & (KEPT - 1), number(i, ".sequence"), "sequence");
        }
    }

    function test_terms() public {
        for (uint256 i; i < open("terms"); ++i) {
            uint256 packed = number(i, ".version") << 248 | number(i, ".kind") << 240 | number(i, ".domain") << 224;
            packed |= number(i, ".module_form") << 216 | number(i, ".input_form") << 208;
            packed |= number(i, ".timeout_s") << 176 | number(i, ".memory_mib") << 144 | number(i, ".fuel") << 80;
            packed |= number(i, ".deadline") << 40 | number(i, ".callback_gas") << 8 | number(i, ".flags");
            vm.assertEq(bytes32(packed), word(i, ".terms"), "terms");
        }
    }

    function test_answers() public {
        for (uint256 i; i < open("answers"); ++i) {
            uint256 packed = answerOf(
                uint64(number(i, ".id")),
                uint64(number(i, ".tag")),
                uint16(number(i, ".engine")),
                uint8(number(i, ".status"))
            );
            if (vm.parseJsonBool(json, key(i, ".again"))) packed |= 0x80;
            vm.assertEq(bytes32(packed), word(i, ".answer"), "answer");
        }
    }

    function test_a_new_board_writes_the_submitted_logs_and_they_hash_to_the_payload_hash() public {
        vm.deal(REQUESTER, type(uint128).max);
        for (uint256 i; i < open("submitted"); ++i) {
            vm.recordLogs();
            uint256 fee = number(i, ".arguments.fee");
            vm.prank(vm.parseJsonAddress(json, key(i, ".requester")));
            board.submit{value: fee}(
                number(i, ".arguments.terms"),
                word(i, ".arguments.module"),
                word(i, ".arguments.input"),
                word(i, ".arguments.entry"),
                vm.parseJsonBytes(json, key(i, ".arguments.extra"))
            );
            Vm.Log memory log = vm.getRecordedLogs()[0];
            vm.assertEq(uint256(log.topics[1]), number(i, ".id"), "id");
            for (uint256 t; t < 3; ++t) {
                vm.assertEq(log.topics[t], word(i, string.concat(".topics[", vm.toString(t), "]")), "topic");
            }
            vm.assertEq(log.data, vm.parseJsonBytes(json, key(i, ".data")), "data");
            bytes32 hash = keccak256(bytes.concat(log.topics[1], log.topics[2], log.data));
            vm.assertEq(hash, word(i, ".payload_hash"), "payload hash");
            uint64 tag = uint64(number(i, ".tag"));
            vm.assertEq(tag, uint64(bytes8(hash)), "tag");
            uint64 id = uint64(number(i, ".id"));
            address requester = id & KEPT == 0 ? address(0) : vm.parseJsonAddress(json, key(i, ".requester"));
            vm.assertEq(board.kept(id, tag).requester, requester, "a kept task stands under its tag");
        }
    }

    function test_packed_batches_publish_their_records() public {
        for (uint256 i; i < 4; ++i) {
            submitFree();
        }
        for (uint256 i; i < open("digests"); ++i) {
            for (uint256 r; r < number(i, ".count"); ++r) {
                string memory row = string.concat(".records[", vm.toString(r), "]");
                vm.expectEmit(address(board));
                emit ITaskBoard.Published(
                    uint64(number(i, string.concat(row, ".id"))),
                    COORDINATOR,
                    answerOf(
                        anchorNumber,
                        uint64(number(i, string.concat(row, ".tag"))),
                        uint16(number(i, ".engine")),
                        uint8(number(i, string.concat(row, ".status")))
                    ),
                    word(i, string.concat(row, ".digest"))
                );
            }
            publishDigests(vm.parseJsonBytes(json, key(i, ".packed")));
        }
        for (uint256 i; vm.keyExistsJson(json, string.concat(".refused[", vm.toString(i), "]")); ++i) {
            bytes memory packed = vm.parseJsonBytes(json, string.concat(".refused[", vm.toString(i), "]"));
            expectRevert(ITaskBoard.MalformedBatch.selector, packed.length);
            publishDigests(packed);
        }
    }

    function test_digests_of_result_documents() public {
        for (uint256 i; i < open("results"); ++i) {
            bytes32 digest = sha256(bytes(vm.parseJsonString(json, key(i, ".document"))));
            vm.assertEq(digest, word(i, ".digest"), "digest");
            bytes memory cid = bytes.concat(hex"01551220", digest);
            vm.assertEq(cid, vm.parseJsonBytes(json, key(i, ".cid")), "the CID of the raw block");
        }
    }

    function open(string memory name) private returns (uint256 count) {
        if (bytes(json).length == 0) json = vm.readFile(string.concat("vectors/", name, ".json"));
        return vm.parseJsonUint(json, ".count");
    }

    function key(uint256 index, string memory path) private pure returns (string memory) {
        return string.concat(".vectors[", vm.toString(index), "]", path);
    }

    function number(uint256 index, string memory path) private view returns (uint256) {
        return vm.parseJsonUint(json, key(index, path));
    }

    function word(uint256 index, string memory path) private view returns (bytes32) {
        return vm.parseJsonBytes32(json, key(index, path));
    }
}
