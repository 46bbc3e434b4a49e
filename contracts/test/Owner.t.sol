// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {ITaskBoard} from "../src/ITaskBoard.sol";
import {vm} from "./Cheats.sol";
import {Board} from "./Board.sol";

contract OwnerTest is Board {
    function test_a_new_board_has_an_owner_and_the_default_domain() public {
        vm.expectEmit();
        emit ITaskBoard.OwnershipTransferred(address(0), STRANGER);
        vm.expectEmit();
        emit ITaskBoard.DomainRegistered(0, "default");
        ITaskBoard fresh = ITaskBoard(vm.deployCode("TaskBoard.sol:TaskBoard", abi.encode(STRANGER)));
        vm.assertEq(fresh.owner(), STRANGER, "owner");
        vm.assertEq(fresh.domainCount(), 1, "domains");
        vm.assertEq(fresh.engineCount(), 0, "engines");
        vm.assertEq(fresh.taskCount(), 0, "tasks");
        vm.assertFalse(fresh.paused(), "paused");
    }

    function test_only_the_owner_governs() public {
        vm.startPrank(STRANGER);
        expectRevert(ITaskBoard.NotOwner.selector);
        board.registerDomain("x");
        expectRevert(ITaskBoard.NotOwner.selector);
        board.registerEngine("x");
        expectRevert(ITaskBoard.NotOwner.selector);
        board.setCoordinator(0, STRANGER, true);
        expectRevert(ITaskBoard.NotOwner.selector);
        board.setPaused(true);
        expectRevert(ITaskBoard.NotOwner.selector);
        board.transferOwnership(STRANGER);
        expectRevert(ITaskBoard.NotPendingOwner.selector);
        board.acceptOwnership();
    }

    function test_ownership_moves_in_two_steps() public {
        vm.prank(OWNER);
        board.transferOwnership(STRANGER);
        vm.assertEq(board.owner(), OWNER, "not yet");
        vm.assertEq(board.pendingOwner(), STRANGER, "pending");
        vm.expectEmit(address(board));
        emit ITaskBoard.OwnershipTransferred(OWNER, STRANGER);
        vm.prank(STRANGER);
        board.acceptOwnership();
        vm.assertEq(board.owner(), STRANGER, "owner");
        vm.assertEq(board.pendingOwner(), address(0), "nobody is pending");
    }

    function test_domains_count_from_0_and_engines_from_1() public {
        vm.startPrank(OWNER);
        vm.assertEq(board.registerDomain("science"), 1, "domain");
        vm.expectEmit(address(board));
        emit ITaskBoard.EngineRegistered(1, "wasmtime 48.0.8");
        vm.assertEq(board.registerEngine("wasmtime 48.0.8"), 1, "engine");
        vm.assertEq(board.registerEngine("another"), 2, "engine");
        vm.assertEq(board.domainCount(), 2, "domains");
        vm.assertEq(board.engineCount(), 2, "engines");
        expectRevert(ITaskBoard.NameLength.selector, 0);
        board.registerDomain("");
        expectRevert(ITaskBoard.NameLength.selector, 65);
        board.registerEngine(string(new bytes(65)));
        expectRevert(ITaskBoard.UnknownDomain.selector, 2);
        board.setCoordinator(2, STRANGER, true);
    }

    function testFuzz_rights_are_what_was_set_last(uint8[40] calldata steps) public {
        vm.prank(OWNER);
        board.registerDomain("second");
        bool[3][2] memory rights;
        rights[0][0] = true; // COORDINATOR, by setUp
        for (uint256 i; i < steps.length; ++i) {
            uint256 domain = steps[i] & 1;
            uint256 who = (steps[i] >> 1) % 3;
            bool allowed = steps[i] >> 6 & 1 == 1;
            vm.prank(OWNER);
            board.setCoordinator(uint16(domain), account(who), allowed);
            rights[domain][who] = allowed;
        }
        for (uint256 domain; domain < 2; ++domain) {
            for (uint256 who; who < 3; ++who) {
                vm.assertTrue(
                    board.isCoordinator(uint16(domain), account(who)) == rights[domain][who], "what the view says"
                );
                uint64 id = submit(0, terms(0, 0, 0) | domain << 224);
                vm.roll(anchorNumber + 1);
                vm.prank(account(who));
                try board.publish(answer(id, OK), DIGEST, anchorNumber, anchorHash) {
                    vm.assertTrue(rights[domain][who], "published");
                } catch {
                    vm.assertFalse(rights[domain][who], "refused");
                }
            }
        }
        vm.assertEq(board.domainCount(), 2, "domains");
        vm.assertEq(board.taskCount(), 6, "tasks");
    }

    function account(uint256 who) private pure returns (address) {
        return who == 0 ? COORDINATOR : address(uint160(0xD0 + who));
    }
}
