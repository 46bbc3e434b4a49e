// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {ITaskBoard} from "../src/ITaskBoard.sol";
import {vm, Vm} from "./Cheats.sol";
import {Board, KEPT} from "./Board.sol";

contract RefusesMoney {
    function submit(ITaskBoard board, uint256 terms) external payable returns (uint64) {
        return board.submit{value: msg.value}(terms, 0, 0, 0, "");
    }

    function withdraw(ITaskBoard board) external {
        board.withdraw(payable(address(this)));
    }
}

/// @notice Takes its money and asks for it again while it is being paid.
contract AsksTwice {
    uint256 public received;

    function submit(ITaskBoard board, uint256 terms) external payable returns (uint64) {
        return board.submit{value: msg.value}(terms, 0, 0, 0, "");
    }

    function withdraw(ITaskBoard board) external {
        board.withdraw(payable(address(this)));
    }

    receive() external payable {
        received += msg.value;
        try ITaskBoard(msg.sender).withdraw(payable(address(this))) {
            revert("paid twice");
        } catch {}
    }
}

contract MoneyTest is Board {
    function test_ok_failed_and_timed_out_pay_the_coordinator() public {
        for (uint8 status = 1; status <= 3; ++status) {
            uint64 id = submit(status, terms(0, 0, 0));
            vm.expectEmit(address(board));
            emit ITaskBoard.Credited(id, COORDINATOR, status);
            publish(id, status);
            vm.assertEq(kept(id).requester, address(0), "nothing is left");
        }
        vm.assertEq(board.credit(COORDINATOR), 6, "credit");
        vm.expectEmit(address(board));
        emit ITaskBoard.Withdrawn(COORDINATOR, STRANGER, 6);
        vm.prank(COORDINATOR);
        vm.assertEq(board.withdraw(payable(STRANGER)), 6, "amount");
        vm.assertEq(STRANGER.balance, 6, "paid");
        vm.expectRevert(abi.encodeWithSelector(ITaskBoard.NothingToWithdraw.selector, COORDINATOR));
        vm.prank(COORDINATOR);
        board.withdraw(payable(STRANGER));
    }

    function test_rejected_refunds_in_full() public {
        uint64 id = submit(1 ether, terms(0, 0, 0));
        vm.expectEmit(address(board));
        emit ITaskBoard.Credited(id, REQUESTER, 1 ether);
        publish(id, REJECTED);
        vm.assertEq(board.credit(REQUESTER), 1 ether, "credit");
        vm.assertEq(board.credit(COORDINATOR), 0, "nothing for nothing");
    }

    function test_a_free_task_pays_nobody() public {
        vm.recordLogs();
        publish(submit(0, terms(0, 50_000, 0)), OK);
        vm.assertEq(countLogs(vm.getRecordedLogs(), ITaskBoard.Credited.selector), 0, "credited");
    }

    function test_cancelling_a_free_task_is_an_event() public {
        uint64 id = submitFree();
        vm.expectEmit(address(board));
        emit ITaskBoard.Cancelled(id, STRANGER, tags[id], uint40(NOW));
        vm.prank(STRANGER);
        board.cancel(id, tags[id]);
        publishAnswer(answer(id, OK) ^ 1 << 24);
        vm.prank(STRANGER);
        board.cancel(id, tags[id]); // closed by a publication that is not its own, it may still be answered
        expectRevert(ITaskBoard.UnknownTask.selector, 2);
        board.cancel(2, 0);
        expectRevert(ITaskBoard.UnknownTask.selector, KEPT | 1);
        board.cancel(KEPT | 1, tags[id]);
    }

    function test_only_the_requester_cancels_a_kept_task_with_a_deadline() public {
        uint64 id = submit(1, terms(NOW + 10 days, 0, 0));
        expectRevert(ITaskBoard.NotRequester.selector, id);
        vm.prank(STRANGER);
        board.cancel(id, tags[id]);
    }

    function test_a_cancelled_task_can_be_answered_within_the_notice() public {
        uint64 id = submit(1 ether, terms(0, 0, 0));
        uint64 second = submit(1 ether, terms(0, 0, 0));
        uint40 end = uint40(NOW) + board.CANCEL_NOTICE();
        vm.assertGe(board.CANCEL_NOTICE(), 1 hours, "longer than a run, a publication and finality together");
        vm.startPrank(REQUESTER);
        vm.expectEmit(address(board));
        emit ITaskBoard.Cancelled(id, REQUESTER, tags[id], end);
        board.cancel(id, tags[id]);
        board.cancel(second, tags[second]);
        vm.warp(NOW + 100);
        board.cancel(id, tags[id]);
        vm.stopPrank();
        vm.assertEq(kept(id).deadline, end, "a second time does not move it");
        vm.warp(end);
        expectNotPassed(second, end);
        publish(id, OK);
        vm.warp(end + 1);
        vm.expectRevert(abi.encodeWithSelector(ITaskBoard.DeadlinePassed.selector, second, end));
        publish(second, OK);
        board.expire(second, tags[second]);
        vm.assertEq(board.credit(REQUESTER), 1 ether, "refund");
        vm.assertEq(board.credit(COORDINATOR), 1 ether, "pay");
    }

    function test_cancelling_keeps_an_earlier_deadline() public {
        uint64 id = submit(1, terms(NOW + 60, 0, 0));
        vm.expectEmit(address(board));
        emit ITaskBoard.Cancelled(id, REQUESTER, tags[id], uint40(NOW + 60));
        vm.prank(REQUESTER);
        board.cancel(id, tags[id]);
        vm.assertEq(kept(id).deadline, NOW + 60, "deadline");
    }

    function test_a_task_expires_once() public {
        uint64 id = submit(1 ether, terms(NOW + 60, 40_000, 0));
        expectNotPassed(id, NOW + 60);
        vm.warp(NOW + 61);
        vm.expectEmit(address(board));
        emit ITaskBoard.Expired(id, tags[id]);
        vm.expectEmit(address(board));
        emit ITaskBoard.Credited(id, REQUESTER, 1 ether);
        vm.prank(STRANGER);
        board.expire(id, tags[id]);
        vm.assertTrue(board.isClosed(id), "closed");
        expectRevert(ITaskBoard.AlreadyClosed.selector, id);
        board.expire(id, tags[id]);
        expectRevert(ITaskBoard.AlreadyClosed.selector, id);
        publish(id, OK);
        expectRevert(ITaskBoard.AlreadyClosed.selector, id);
        board.cancel(id, tags[id]);
        vm.assertEq(board.credit(REQUESTER), 1 ether, "once");
    }

    function test_only_kept_tasks_with_a_deadline_expire() public {
        uint64 id = submit(1 ether, terms(0, 0, 0));
        expectNotPassed(id, 0);
        expectRevert(ITaskBoard.NotKept.selector, 1);
        board.expire(1, tags[1]);
        expectRevert(ITaskBoard.UnknownTask.selector, KEPT | 9);
        board.expire(KEPT | 9, tags[id]);
        uint64 free = submitFree();
        expectRevert(ITaskBoard.UnknownTask.selector, KEPT | 2);
        board.expire(KEPT | 2, tags[free]);
    }

    function test_who_refuses_money_keeps_its_credit() public {
        RefusesMoney who = new RefusesMoney();
        publish(noted(who.submit{value: 5}(board, terms(0, 0, 0)), address(who), terms(0, 0, 0), 5), REJECTED);
        vm.expectRevert(abi.encodeWithSelector(ITaskBoard.TransferFailed.selector, address(who)));
        who.withdraw(board);
        vm.assertEq(board.credit(address(who)), 5, "credit");
        vm.deal(address(this), 1);
        (bool success,) = address(board).call{value: 1}("");
        vm.assertFalse(success, "money comes with a task only");
    }

    function test_nobody_is_paid_twice() public {
        AsksTwice who = new AsksTwice();
        publish(noted(who.submit{value: 5}(board, terms(0, 0, 0)), address(who), terms(0, 0, 0), 5), REJECTED);
        submit(100, terms(0, 0, 0));
        who.withdraw(board);
        vm.assertEq(who.received(), 5, "received");
        vm.assertEq(address(board).balance, 100, "the others' money");
    }

    /// A kept task of the same requester under the same id, on another branch: its tag is another one.
    function test_t4_cancel_and_expire_hit_no_task_with_another_tag() public {
        uint64 id = submit(1 ether, terms(NOW + 60, 0, 0));
        uint64 other = tags[id] ^ 1;
        expectRevert(ITaskBoard.UnknownTask.selector, id);
        vm.prank(REQUESTER);
        board.cancel(id, other);
        vm.warp(NOW + 61);
        expectRevert(ITaskBoard.UnknownTask.selector, id);
        board.expire(id, other);
        vm.assertEq(kept(id).fee, 1 ether, "still held");
        vm.assertFalse(board.isClosed(id), "open");
        board.expire(id, tags[id]);
    }

    /// A contract that cannot cancel: anybody gives its task a deadline, a long one, and once.
    function test_t7_the_fee_of_a_requester_that_cannot_cancel_is_not_lost() public {
        RefusesMoney who = new RefusesMoney();
        uint64 id = noted(who.submit{value: 5}(board, terms(0, 50_000, 0)), address(who), terms(0, 50_000, 0), 5);
        uint40 end = uint40(NOW) + board.ABANDON_NOTICE();
        vm.assertGe(board.ABANDON_NOTICE(), 30 days, "nobody takes a task away from its coordinator");
        vm.expectEmit(address(board));
        emit ITaskBoard.Cancelled(id, STRANGER, tags[id], end);
        vm.prank(STRANGER);
        board.cancel(id, tags[id]);
        vm.warp(NOW + 1 days);
        expectRevert(ITaskBoard.NotRequester.selector, id);
        vm.prank(STRANGER);
        board.cancel(id, tags[id]);
        vm.assertEq(kept(id).deadline, end, "deadline");
        vm.assertEq(kept(id).callbackGas, 50_000, "the rest stays");
        vm.warp(end);
        expectNotPassed(id, end);
        vm.warp(end + 1);
        vm.prank(STRANGER);
        board.expire(id, tags[id]);
        vm.assertEq(board.credit(address(who)), 5, "refund");
    }

    function test_the_requester_shortens_what_somebody_else_gave() public {
        uint64 id = submit(1, terms(0, 0, 0));
        vm.prank(STRANGER);
        board.cancel(id, tags[id]);
        vm.prank(REQUESTER);
        board.cancel(id, tags[id]);
        vm.assertEq(kept(id).deadline, NOW + board.CANCEL_NOTICE(), "deadline");
    }

    /// The table of the terms: without a fee, only flag 0 makes the contract enforce a deadline.
    function test_t7_a_deadline_without_a_fee_is_enforced_by_its_flag_alone() public {
        uint64 id = submit(0, terms(NOW + 60, 40_000, 0));
        uint64 flagged = submit(0, terms(NOW + 60, 40_000, 1));
        vm.assertEq(kept(id).deadline, 0, "none");
        vm.assertEq(kept(flagged).deadline, NOW + 60, "flagged");
        vm.warp(NOW + 61);
        expectNotPassed(id, 0);
        publish(id, OK);
        vm.expectRevert(abi.encodeWithSelector(ITaskBoard.DeadlinePassed.selector, flagged, NOW + 60));
        publish(flagged, OK);
        vm.assertEq(submit(0, terms(NOW, 40_000, 0)), KEPT | 3, "one that has passed is for coordinators to judge");
    }

    /// Fees of more than 64 bits need the second word.
    function testFuzz_any_fee_is_held_and_paid(uint96 fee, bool deadline, bool cancelled) public {
        vm.assume(fee != 0);
        vm.deal(REQUESTER, fee);
        uint64 id = submit(fee, terms(deadline ? NOW + 60 : 0, 0, 0));
        vm.assertEq(kept(id).fee, fee, "held");
        if (cancelled) {
            vm.prank(REQUESTER);
            board.cancel(id, tags[id]);
            vm.assertEq(kept(id).fee, fee, "still held");
        }
        publish(id, OK);
        vm.assertEq(board.credit(COORDINATOR), fee, "paid");
        vm.assertEq(kept(id).fee, 0, "gone");
    }

    function kept(uint64 id) private view returns (ITaskBoard.Kept memory) {
        return board.kept(id, tags[id]);
    }

    function expectNotPassed(uint64 id, uint256 deadline) private {
        vm.expectRevert(abi.encodeWithSelector(ITaskBoard.DeadlineNotPassed.selector, id, deadline));
        board.expire(id, tags[id]);
    }
}
