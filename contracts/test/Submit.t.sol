// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {ITaskBoard} from "../src/ITaskBoard.sol";
import {vm} from "./Cheats.sol";
import {Board, KEPT, tagOf} from "./Board.sol";

contract SubmitTest is Board {
    function test_ids_are_dense_over_domains_and_kinds_of_tasks() public {
        vm.prank(OWNER);
        vm.assertEq(board.registerDomain("second"), 1, "domain");
        vm.assertEq(submitFree(), 1, "free");
        vm.assertEq(submit(1 ether, terms(0, 0, 0)), KEPT | 2, "kept");
        vm.assertEq(submit(0, terms(0, 0, 0) | uint256(1) << 224), 1 << 48 | 3, "second domain");
        vm.assertEq(board.taskCount(), 3, "count");
    }

    function test_the_event_says_everything() public {
        vm.expectEmit(address(board));
        emit ITaskBoard.Submitted(
            KEPT | 1, REQUESTER, terms(0, 0, 0), keccak256("m"), keccak256("i"), "add", 7, hex"0500010a"
        );
        vm.prank(REQUESTER);
        board.submit{value: 7}(terms(0, 0, 0), keccak256("m"), keccak256("i"), "add", hex"0500010a");
    }

    function test_a_task_is_kept_for_a_fee_a_callback_or_an_enforced_deadline() public {
        uint40 later = uint40(NOW + 60);
        vm.assertEq(submit(0, terms(later, 0, 0)), 1, "a deadline alone");
        vm.assertEq(kept(1).requester, address(0), "nothing is stored");
        uint64 id = submit(0, terms(later, 0, 1));
        vm.assertEq(id, KEPT | 2, "an enforced deadline");
        vm.assertEq(kept(id).deadline, later, "deadline");
        id = submit(0, terms(0, 50_000, 0));
        vm.assertEq(id, KEPT | 3, "a callback");
        vm.assertEq(kept(id).callbackGas, 50_000, "callback gas");
        id = submit(5, terms(later, 0, 0));
        vm.assertEq(kept(id).deadline, later, "with a fee a deadline is enforced");
        vm.assertEq(kept(id).fee, 5, "fee");
        vm.assertEq(kept(id).requester, REQUESTER, "requester");
    }

    function test_an_enforced_deadline_is_in_the_future() public {
        expectRevert(ITaskBoard.InvalidDeadline.selector, NOW);
        submit(1, terms(NOW, 0, 0));
        expectRevert(ITaskBoard.InvalidDeadline.selector, 0);
        submit(0, terms(0, 0, 1));
        vm.assertEq(submit(0, terms(NOW, 0, 0)), 1, "that of a free task is for coordinators to judge");
    }

    function test_terms_are_checked() public {
        expectRevert(ITaskBoard.UnsupportedVersion.selector, 2);
        submit(0, 2 << 248 | 1 << 240);
        expectRevert(ITaskBoard.UnsupportedVersion.selector, 0);
        submit(0, 1 << 240);
        expectRevert(ITaskBoard.InvalidKind.selector, 0);
        submit(0, 1 << 248);
        expectRevert(ITaskBoard.UnknownDomain.selector, 1);
        submit(0, terms(0, 0, 0) | uint256(1) << 224);
        expectRevert(ITaskBoard.InvalidTerms.selector, terms(0, 0, 2));
        submit(0, terms(0, 0, 2));
        uint256 greedy = terms(0, board.MAX_CALLBACK_GAS() + 1, 0);
        expectRevert(ITaskBoard.InvalidTerms.selector, greedy);
        submit(0, greedy);
        vm.assertEq(submit(0, 1 << 248 | uint256(255) << 240), 1, "a kind of the future");
    }

    function test_extra_is_bounded() public {
        board.submit(terms(0, 0, 0), 0, 0, 0, new bytes(1024));
        expectRevert(ITaskBoard.ExtraTooLong.selector, 1025);
        board.submit(terms(0, 0, 0), 0, 0, 0, new bytes(1025));
    }

    function test_pause_stops_submissions_only() public {
        uint64 id = submitFree();
        vm.prank(OWNER);
        board.setPaused(true);
        vm.assertTrue(board.paused(), "paused");
        expectRevert(ITaskBoard.SubmissionsPaused.selector);
        submitFree();
        expectRevert(ITaskBoard.SubmissionsPaused.selector);
        board.submitBatch(requests(1, 0));
        publish(id, OK);
        vm.prank(OWNER);
        board.setPaused(false);
        vm.assertEq(submitFree(), 2, "again");
    }

    function test_a_batch_gets_consecutive_ids_and_the_sum_of_its_fees() public {
        submitFree();
        vm.prank(REQUESTER);
        uint64 first = board.submitBatch{value: 0 + 1 + 2}(requests(3, 1));
        vm.assertEq(first, 2, "first");
        vm.assertEq(board.taskCount(), 4, "count");
        vm.assertEq(kept(noted(KEPT | 3, REQUESTER, terms(0, 0, 0), 1)).fee, 1, "second");
        vm.assertEq(kept(noted(KEPT | 4, REQUESTER, terms(0, 0, 0), 2)).fee, 2, "third");
        vm.expectRevert(abi.encodeWithSelector(ITaskBoard.WrongValue.selector, 2, 3));
        vm.prank(REQUESTER);
        board.submitBatch{value: 2}(requests(3, 1));
        expectRevert(ITaskBoard.MalformedBatch.selector, 0);
        board.submitBatch(requests(0, 0));
    }

    function testFuzz_only_valid_terms_are_accepted(uint256 terms_, uint96 fee) public {
        uint256 deadline = uint40(terms_ >> 40);
        uint256 callbackGas = uint32(terms_ >> 8);
        uint256 flags = uint8(terms_);
        bool isKept = fee != 0 || callbackGas != 0 || flags == 1;
        bool valid = terms_ >> 248 == 1 && uint8(terms_ >> 240) != 0 && uint16(terms_ >> 224) == 0 && flags <= 1
            && callbackGas <= board.MAX_CALLBACK_GAS()
            && !((fee != 0 && deadline != 0 || flags == 1) && deadline <= NOW);
        vm.deal(REQUESTER, fee);
        vm.prank(REQUESTER);
        try board.submit{value: fee}(terms_, 0, 0, 0, "") returns (uint64 id) {
            vm.assertTrue(valid, "accepted");
            vm.assertEq(id, (isKept ? KEPT : 0) | 1, "id");
            ITaskBoard.Kept memory task = kept(noted(id, REQUESTER, terms_, fee));
            vm.assertEq(task.requester, isKept ? REQUESTER : address(0), "requester");
            vm.assertEq(task.fee, fee, "fee");
            vm.assertEq(task.deadline, fee != 0 || flags != 0 ? deadline : 0, "deadline");
            vm.assertEq(task.callbackGas, callbackGas, "callback gas");
            vm.assertEq(task.submittedIn, isKept ? block.number : 0, "block");
        } catch {
            vm.assertFalse(valid, "refused");
            vm.assertEq(board.taskCount(), 0, "nothing counted");
        }
    }

    /// The contract's key of a kept task is the tag that every reader computes from the log, whatever is in it.
    function testFuzz_a_kept_task_stands_under_its_tag_alone(
        uint96 fee,
        bytes32[3] calldata words,
        bytes calldata extra,
        uint64 other
    ) public {
        vm.assume(extra.length <= 1024);
        fee |= 1;
        uint256 terms_ = terms(NOW + 60, 0, 0);
        vm.deal(STRANGER, fee);
        vm.prank(STRANGER);
        uint64 id = board.submit{value: fee}(terms_, words[0], words[1], words[2], extra);
        uint64 tag = tagOf(id, STRANGER, terms_, words[0], words[1], words[2], fee, extra);
        vm.assertEq(board.kept(id, tag).fee, fee, "fee");
        vm.assume(other != tag);
        vm.assertEq(board.kept(id, other).requester, address(0), "another tag");
    }

    function testFuzz_accepted_terms_come_near_the_edges(uint8 kind, uint40 deadline, uint32 gas_, bool flag) public {
        testFuzz_only_valid_terms_are_accepted(
            1 << 248 | uint256(kind) << 240 | uint256(deadline) << 40 | uint256(gas_ % 2_000_000) << 8 | (flag ? 1 : 0),
            uint96(kind % 2)
        );
    }

    function kept(uint64 id) private view returns (ITaskBoard.Kept memory) {
        return board.kept(id, tags[id]);
    }

    function requests(uint256 count, uint96 feeStep) private pure returns (ITaskBoard.Request[] memory batch) {
        batch = new ITaskBoard.Request[](count);
        for (uint256 i; i < count; ++i) {
            batch[i].terms = terms(0, 0, 0);
            batch[i].fee = uint96(i) * feeStep;
        }
    }
}
