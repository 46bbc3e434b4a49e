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
            vm.assertEq(board.kept(id).requester, address(0), "nothing is left");
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
        emit ITaskBoard.Cancelled(id, STRANGER, uint40(NOW));
        vm.prank(STRANGER);
        board.cancel(id);
        publish(id, OK);
        expectRevert(ITaskBoard.AlreadyClosed.selector, id);
        board.cancel(id);
        expectRevert(ITaskBoard.UnknownTask.selector, 2);
        board.cancel(2);
        expectRevert(ITaskBoard.UnknownTask.selector, KEPT | 1);
        board.cancel(KEPT | 1);
    }

    function test_only_the_requester_cancels_a_kept_task() public {
        uint64 id = submit(1, terms(0, 0, 0));
        expectRevert(ITaskBoard.NotRequester.selector, id);
        vm.prank(STRANGER);
        board.cancel(id);
    }

    function test_a_cancelled_task_can_be_answered_within_the_notice() public {
        uint64 id = submit(1 ether, terms(0, 0, 0));
        uint64 second = submit(1 ether, terms(0, 0, 0));
        uint40 end = uint40(NOW) + board.CANCEL_NOTICE();
        vm.startPrank(REQUESTER);
        vm.expectEmit(address(board));
        emit ITaskBoard.Cancelled(id, REQUESTER, end);
        board.cancel(id);
        board.cancel(second);
        vm.warp(NOW + 100);
        board.cancel(id);
        vm.stopPrank();
        vm.assertEq(board.kept(id).deadline, end, "a second time does not move it");
        vm.warp(end);
        expectNotPassed(second, end);
        publish(id, OK);
        vm.warp(end + 1);
        vm.expectRevert(abi.encodeWithSelector(ITaskBoard.DeadlinePassed.selector, second, end));
        publish(second, OK);
        board.expire(second);
        vm.assertEq(board.credit(REQUESTER), 1 ether, "refund");
        vm.assertEq(board.credit(COORDINATOR), 1 ether, "pay");
    }

    function test_cancelling_keeps_an_earlier_deadline() public {
        uint64 id = submit(1, terms(NOW + 60, 0, 0));
        vm.expectEmit(address(board));
        emit ITaskBoard.Cancelled(id, REQUESTER, uint40(NOW + 60));
        vm.prank(REQUESTER);
        board.cancel(id);
        vm.assertEq(board.kept(id).deadline, NOW + 60, "deadline");
    }

    function test_a_task_expires_once() public {
        uint64 id = submit(1 ether, terms(NOW + 60, 40_000, 0));
        expectNotPassed(id, NOW + 60);
        vm.warp(NOW + 61);
        vm.expectEmit(address(board));
        emit ITaskBoard.Expired(id);
        vm.expectEmit(address(board));
        emit ITaskBoard.Credited(id, REQUESTER, 1 ether);
        vm.prank(STRANGER);
        board.expire(id);
        vm.assertTrue(board.isClosed(id), "closed");
        expectRevert(ITaskBoard.AlreadyClosed.selector, id);
        board.expire(id);
        expectRevert(ITaskBoard.AlreadyClosed.selector, id);
        publish(id, OK);
        expectRevert(ITaskBoard.AlreadyClosed.selector, id);
        board.cancel(id);
        vm.assertEq(board.credit(REQUESTER), 1 ether, "once");
    }

    function test_only_kept_tasks_with_a_deadline_expire() public {
        uint64 id = submit(1 ether, terms(0, 0, 0));
        expectNotPassed(id, 0);
        expectRevert(ITaskBoard.NotKept.selector, 1);
        board.expire(1);
        expectRevert(ITaskBoard.UnknownTask.selector, KEPT | 9);
        board.expire(KEPT | 9);
        submitFree();
        expectRevert(ITaskBoard.UnknownTask.selector, KEPT | 2);
        board.expire(KEPT | 2);
    }

    function test_who_refuses_money_keeps_its_credit() public {
        RefusesMoney who = new RefusesMoney();
        publish(who.submit{value: 5}(board, terms(0, 0, 0)), REJECTED);
        vm.expectRevert(abi.encodeWithSelector(ITaskBoard.TransferFailed.selector, address(who)));
        who.withdraw(board);
        vm.assertEq(board.credit(address(who)), 5, "credit");
        vm.deal(address(this), 1);
        (bool success,) = address(board).call{value: 1}("");
        vm.assertFalse(success, "money comes with a task only");
    }

    function test_nobody_is_paid_twice() public {
        AsksTwice who = new AsksTwice();
        publish(who.submit{value: 5}(board, terms(0, 0, 0)), REJECTED);
        submit(100, terms(0, 0, 0));
        who.withdraw(board);
        vm.assertEq(who.received(), 5, "received");
        vm.assertEq(address(board).balance, 100, "the others' money");
    }

    function expectNotPassed(uint64 id, uint256 deadline) private {
        vm.expectRevert(abi.encodeWithSelector(ITaskBoard.DeadlineNotPassed.selector, id, deadline));
        board.expire(id);
    }
}
