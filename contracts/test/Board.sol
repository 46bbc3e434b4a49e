// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {ITaskBoard} from "../src/ITaskBoard.sol";
import {vm, Vm} from "./Cheats.sol";

uint64 constant KEPT = 1 << 47;

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
    uint64 internal anchorNumber;
    bytes32 internal anchorHash;

    function setUp() public virtual {
        vm.warp(NOW);
        vm.roll(1000);
        anchorNumber = 999;
        anchorHash = keccak256("block 999");
        vm.setBlockhash(anchorNumber, anchorHash);
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

    function submit(address requester, uint256 fee, uint256 terms_) internal returns (uint64) {
        vm.prank(requester);
        return board.submit{value: fee}(terms_, keccak256("module"), keccak256("input"), "fib", "");
    }

    function submitFree() internal returns (uint64) {
        return submit(0, terms(0, 0, 0));
    }

    function publish(uint64 id, uint8 status) internal {
        vm.prank(COORDINATOR);
        board.publish(id, status, 1, DIGEST, anchorNumber, anchorHash);
    }

    function publishDigests(bytes memory packed) internal {
        vm.prank(COORDINATOR);
        board.publishDigests(packed, anchorNumber, anchorHash);
    }

    function digests(uint64[] memory ids, uint8 status) internal pure returns (bytes memory packed) {
        packed = abi.encodePacked(uint16(1));
        for (uint256 i; i < ids.length; ++i) {
            packed = bytes.concat(packed, abi.encodePacked(ids[i], status, keccak256(abi.encode(ids[i]))));
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
        emit ITaskBoard.Published(id, COORDINATOR, status, 1, digest);
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
