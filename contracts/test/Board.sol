// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {ITaskBoard} from "../src/ITaskBoard.sol";
import {vm, Vm} from "./Cheats.sol";

uint64 constant KEPT = 1 << 47;
/// @dev Bit of an answer and of a record: publish although the id is closed.
uint8 constant AGAIN = 0x80;

/// @dev The tag of a submission, computed here from what the documentation says, not by the contract.
function tagOf(
    uint64 id,
    address requester,
    uint256 terms,
    bytes32 module,
    bytes32 input,
    bytes32 entry,
    uint256 fee,
    bytes memory extra
) pure returns (uint64) {
    bytes memory data = abi.encode(terms, module, input, entry, fee, extra);
    return uint64(bytes8(keccak256(bytes.concat(bytes32(uint256(id)), bytes32(uint256(uint160(requester))), data))));
}

function answerOf(uint64 id, uint64 tag, uint16 engine, uint8 status) pure returns (uint256) {
    return uint256(id) << 88 | uint256(tag) << 24 | uint256(engine) << 8 | status;
}

/// @notice A board with one coordinator, a requester with money, and words for what tests say often.
abstract contract Board {
    address internal constant OWNER = address(0xA11CE);
    address internal constant COORDINATOR = address(0xC0);
    address internal constant REQUESTER = address(0x4E0);
    address internal constant STRANGER = address(0x57);
    uint256 internal constant NOW = 1_800_000_000;
    bytes32 internal constant DIGEST = keccak256("digest");
    uint8 internal constant OK = uint8(ITaskBoard.Status.Ok);
    uint8 internal constant REJECTED = uint8(ITaskBoard.Status.Rejected);

    ITaskBoard internal board;
    /// @dev The tags of what was submitted through this contract; others are 0.
    mapping(uint64 id => uint64) internal tags;
    uint64 internal anchorNumber;
    bytes32 internal anchorHash;

    function setUp() public virtual {
        vm.warp(NOW);
        anchorNumber = 1000;
        anchorHash = keccak256("block 1000");
        vm.roll(anchorNumber + 1);
        vm.setBlockhash(anchorNumber, anchorHash);
        vm.roll(anchorNumber);
        board = ITaskBoard(vm.deployCode("TaskBoard.sol:TaskBoard", abi.encode(OWNER)));
        vm.prank(OWNER);
        board.setCoordinator(0, COORDINATOR, true);
        vm.deal(REQUESTER, 1000 ether);
    }

    function terms(uint256 deadline, uint256 callbackGas, uint256 flags) internal pure returns (uint256) {
        return
            1 << 248 | 1 << 240 | 2 << 216 | 2 << 208 | uint256(30) << 176 | deadline << 40 | callbackGas << 8 | flags;
    }

    function submit(uint256 fee, uint256 terms_) internal returns (uint64) {
        return submit(REQUESTER, fee, terms_);
    }

    function submit(address requester, uint256 fee, uint256 terms_) internal returns (uint64 id) {
        vm.prank(requester);
        id = board.submit{value: fee}(terms_, keccak256("module"), keccak256("input"), "fib", "");
        tags[id] = tagOf(id, requester, terms_, keccak256("module"), keccak256("input"), "fib", fee, "");
    }

    /// @dev Notes the tag of a task that was submitted without module, input and entry.
    function noted(uint64 id, address requester, uint256 terms_, uint256 fee) internal returns (uint64) {
        tags[id] = tagOf(id, requester, terms_, 0, 0, 0, fee, "");
        return id;
    }

    /// @dev The answer to a task by engine 1, with the task's own tag.
    function answer(uint64 id, uint8 status) internal view returns (uint256) {
        return answerOf(id, tags[id], 1, status);
    }

    /// @dev The same as it is logged.
    function logged(uint64 id, uint8 status) internal view returns (uint256) {
        return answerOf(anchorNumber, tags[id], 1, status);
    }

    /// @dev One record of a packed batch.
    function record(uint64 id, uint8 status, bytes32 digest) internal view returns (bytes memory) {
        return abi.encodePacked(id, tags[id], status, digest);
    }

    function submitFree() internal returns (uint64) {
        return submit(0, terms(0, 0, 0));
    }

    function publish(uint64 id, uint8 status) internal {
        publishAnswer(answer(id, status));
    }

    /// @dev Everything is submitted in the anchor's block, so that every task can be published on it, in the next one.
    modifier inTheNextBlock() {
        vm.roll(anchorNumber + 1);
        _;
        vm.roll(anchorNumber);
    }

    function publishAnswer(uint256 answer_) internal inTheNextBlock {
        vm.prank(COORDINATOR);
        board.publish(answer_, DIGEST, anchorNumber, anchorHash);
    }

    function publishDocument(uint64 id, uint8 status, bytes memory document) internal inTheNextBlock {
        vm.prank(COORDINATOR);
        board.publishDocument(answer(id, status), document, anchorNumber, anchorHash);
    }

    function publishBatch(ITaskBoard.Result[] memory results) internal inTheNextBlock {
        vm.prank(COORDINATOR);
        board.publishBatch(results, anchorNumber, anchorHash);
    }

    function publishDigests(bytes memory packed) internal inTheNextBlock {
        vm.prank(COORDINATOR);
        board.publishDigests(packed, anchorNumber, anchorHash);
    }

    function digests(uint64[] memory ids, uint8 status) internal view returns (bytes memory packed) {
        packed = abi.encodePacked(uint16(1));
        for (uint256 i; i < ids.length; ++i) {
            packed = bytes.concat(packed, record(ids[i], status, keccak256(abi.encode(ids[i]))));
        }
    }

    function list(uint64 a) internal pure returns (uint64[] memory ids) {
        ids = new uint64[](1);
        ids[0] = a;
    }

    function list(uint64 a, uint64 b, uint64 c) internal pure returns (uint64[] memory ids) {
        ids = new uint64[](3);
        (ids[0], ids[1], ids[2]) = (a, b, c);
    }

    function expectSkipped(uint64 id, ITaskBoard.SkipReason reason) internal {
        vm.expectEmit(address(board));
        emit ITaskBoard.Skipped(id, reason);
    }

    function expectPublished(uint64 id, uint8 status, bytes32 digest) internal {
        vm.expectEmit(address(board));
        emit ITaskBoard.Published(id, COORDINATOR, logged(id, status), digest);
    }

    function expectRevert(bytes4 selector, uint256 argument) internal {
        vm.expectRevert(abi.encodeWithSelector(selector, argument));
    }

    function expectRevert(bytes4 selector) internal {
        vm.expectRevert(abi.encodeWithSelector(selector));
    }

    function countLogs(Vm.Log[] memory logs, bytes32 signature) internal pure returns (uint256 count) {
        for (uint256 i; i < logs.length; ++i) {
            if (logs[i].topics[0] == signature) ++count;
        }
    }
}
