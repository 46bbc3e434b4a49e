// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {ITaskBoard} from "../src/ITaskBoard.sol";
import {vm, Vm} from "./Cheats.sol";
import {Board, KEPT} from "./Board.sol";

contract PublishTest is Board {
    function test_a_digest_is_published_once() public {
        uint64 id = submitFree();
        expectPublished(id, OK, DIGEST);
        publish(id, OK);
        vm.assertTrue(board.isClosed(id), "closed");
        expectRevert(ITaskBoard.AlreadyClosed.selector, id);
        publish(id, OK);
    }

    function test_a_document_is_published_up_to_256_bytes() public {
        uint64 id = submitFree();
        bytes memory document = new bytes(256);
        vm.expectEmit(address(board));
        emit ITaskBoard.PublishedDocument(id, COORDINATOR, 2, 9, document);
        vm.startPrank(COORDINATOR);
        board.publishDocument(id, 2, 9, document, anchorNumber, anchorHash);
        id = board.submit(terms(0, 0, 0), 0, 0, 0, "");
        expectRevert(ITaskBoard.DocumentTooLarge.selector, 257);
        board.publishDocument(id, 2, 9, new bytes(257), anchorNumber, anchorHash);
    }

    function test_only_coordinators_of_the_domain_publish() public {
        vm.prank(OWNER);
        board.registerDomain("second");
        uint64 id = submitFree();
        uint64 second = submit(0, terms(0, 0, 0) | uint256(1) << 224);
        vm.expectRevert(abi.encodeWithSelector(ITaskBoard.NotCoordinator.selector, 0, STRANGER));
        vm.prank(STRANGER);
        board.publish(id, OK, 1, DIGEST, anchorNumber, anchorHash);
        vm.expectRevert(abi.encodeWithSelector(ITaskBoard.NotCoordinator.selector, 1, COORDINATOR));
        publish(second, OK);
    }

    function test_only_kept_tasks_that_exist_and_known_statuses_are_published() public {
        uint64 id = submitFree();
        expectRevert(ITaskBoard.InvalidStatus.selector, 0);
        publish(id, 0);
        expectRevert(ITaskBoard.InvalidStatus.selector, 5);
        publish(id, 5);
        expectRevert(ITaskBoard.UnknownTask.selector, KEPT | 1);
        publish(KEPT | 1, OK);
    }

    function testFuzz_a_wrong_anchor_never_publishes(uint64 number, bytes32 hash) public {
        uint64 id = submit(1 ether, terms(0, 0, 0));
        vm.assume(hash != blockhash(number) || hash == 0);
        bytes memory wrong = abi.encodeWithSelector(ITaskBoard.WrongAnchor.selector, number, hash, blockhash(number));
        vm.startPrank(COORDINATOR);
        vm.expectRevert(wrong);
        board.publish(id, OK, 1, DIGEST, number, hash);
        vm.expectRevert(wrong);
        board.publishDocument(id, OK, 1, "{}", number, hash);
        vm.expectRevert(wrong);
        board.publishBatch(new ITaskBoard.Result[](1), number, hash);
        vm.expectRevert(wrong);
        board.publishDigests(digests(list(id), OK), number, hash);
        vm.assertFalse(board.isClosed(id), "open");
    }

    function test_an_anchor_is_not_too_old_and_not_the_current_block() public {
        uint64 id = submitFree();
        bytes memory wrong = abi.encodeWithSelector(ITaskBoard.WrongAnchor.selector, 999, anchorHash, 0);
        vm.roll(999 + 257);
        vm.expectRevert(wrong);
        publish(id, OK);
        vm.roll(999);
        vm.expectRevert(wrong);
        publish(id, OK);
        vm.expectRevert(abi.encodeWithSelector(ITaskBoard.WrongAnchor.selector, 5000, 0, 0));
        vm.prank(COORDINATOR);
        board.publish(id, OK, 1, DIGEST, 5000, 0);
    }

    function test_a_kept_task_is_not_published_after_its_deadline() public {
        uint64 id = submit(1 ether, terms(NOW + 60, 0, 0));
        uint64 second = submit(1 ether, terms(NOW + 60, 0, 0));
        vm.warp(NOW + 60);
        publish(id, OK);
        vm.warp(NOW + 61);
        vm.expectRevert(abi.encodeWithSelector(ITaskBoard.DeadlinePassed.selector, second, NOW + 60));
        publish(second, OK);
        expectSkipped(second, ITaskBoard.SkipReason.DeadlinePassed);
        publishDigests(digests(list(second), OK));
    }

    function test_a_bad_item_never_sinks_a_batch_of_documents() public {
        uint64 a = submitFree();
        uint64 b = submit(1 ether, terms(0, 0, 0));
        uint64 c = submitFree();
        ITaskBoard.Result[] memory results = new ITaskBoard.Result[](8);
        results[0] = ITaskBoard.Result(a, OK, 1, "a");
        results[1] = ITaskBoard.Result(a, OK, 1, "again");
        results[2] = ITaskBoard.Result(b, 0, 1, "no status");
        results[3] = ITaskBoard.Result(b, REJECTED, 1, "b");
        results[4] = ITaskBoard.Result(KEPT | 9, OK, 1, "unknown");
        results[5] = ITaskBoard.Result(c, OK, 1, new bytes(257));
        results[6] = ITaskBoard.Result(1 << 48 | c, OK, 1, "other domain");
        results[7] = ITaskBoard.Result(c, OK, 1, "c");
        vm.recordLogs();
        vm.prank(COORDINATOR);
        board.publishBatch(results, anchorNumber, anchorHash);
        Vm.Log[] memory logs = vm.getRecordedLogs();
        vm.assertEq(countLogs(logs, ITaskBoard.PublishedDocument.selector), 3, "published");
        uint8[5] memory reasons = [1, 5, 3, 6, 2];
        uint256 next;
        for (uint256 i; i < logs.length; ++i) {
            if (logs[i].topics[0] != ITaskBoard.Skipped.selector) continue;
            vm.assertEq(abi.decode(logs[i].data, (uint8)), reasons[next++], "reason");
        }
        vm.assertEq(next, 5, "skipped");
        vm.assertEq(board.credit(REQUESTER), 1 ether, "refund");
        expectRevert(ITaskBoard.MalformedBatch.selector, 0);
        vm.prank(COORDINATOR);
        board.publishBatch(new ITaskBoard.Result[](0), anchorNumber, anchorHash);
    }

    function test_a_bad_record_never_sinks_a_batch_of_digests() public {
        uint64 a = submitFree();
        uint64 b = submit(1 ether, terms(0, 0, 0));
        uint64 c = submitFree();
        bytes memory packed = abi.encodePacked(uint16(7));
        packed = bytes.concat(packed, abi.encodePacked(a, OK, DIGEST, a, OK, DIGEST, b, uint8(5), DIGEST));
        packed = bytes.concat(packed, abi.encodePacked(b, OK, DIGEST, b, OK, DIGEST, KEPT | 9, OK, DIGEST));
        packed = bytes.concat(packed, abi.encodePacked(uint64(1) << 48 | c, OK, DIGEST, c, uint8(0), DIGEST));
        packed = bytes.concat(packed, abi.encodePacked(c, OK, DIGEST));
        vm.recordLogs();
        publishDigests(packed);
        Vm.Log[] memory logs = vm.getRecordedLogs();
        vm.assertEq(countLogs(logs, ITaskBoard.Published.selector), 3, "published");
        uint8[6] memory reasons = [1, 5, 1, 3, 2, 5];
        uint256 next;
        for (uint256 i; i < logs.length; ++i) {
            if (logs[i].topics[0] == ITaskBoard.Published.selector) {
                vm.assertEq(logs[i].data, abi.encode(OK, uint16(7), DIGEST), "data");
                vm.assertEq(address(uint160(uint256(logs[i].topics[2]))), COORDINATOR, "coordinator");
            }
            if (logs[i].topics[0] != ITaskBoard.Skipped.selector) continue;
            vm.assertEq(abi.decode(logs[i].data, (uint8)), reasons[next++], "reason");
        }
        vm.assertEq(next, 6, "skipped");
        vm.assertTrue(board.isClosed(a) && board.isClosed(b) && board.isClosed(c), "closed");
        vm.assertEq(board.credit(COORDINATOR), 1 ether, "paid");
    }

    function testFuzz_a_malformed_packed_batch_reverts(uint16 length) public {
        length = length % 500;
        vm.assume(length < 43 || (length - 2) % 41 != 0);
        expectRevert(ITaskBoard.MalformedBatch.selector, length);
        publishDigests(new bytes(length));
    }

    /// Ids in any order over several words, with repetitions: each is published exactly once.
    function testFuzz_digests_of_any_order_close_each_task_once(uint16[] calldata picks) public {
        vm.assume(picks.length != 0);
        uint64 tasks = 700;
        ITaskBoard.Request[] memory batch = new ITaskBoard.Request[](tasks);
        for (uint256 i; i < tasks; ++i) {
            batch[i].terms = terms(0, 0, 0);
            batch[i].fee = i % 7 == 0 ? 1 : 0;
        }
        vm.prank(REQUESTER);
        board.submitBatch{value: 100}(batch);
        uint64[] memory ids = new uint64[](picks.length);
        uint256 unique;
        bool[] memory seen = new bool[](tasks);
        for (uint256 i; i < picks.length; ++i) {
            uint64 index = picks[i] % tasks;
            ids[i] = (index % 7 == 0 ? KEPT : 0) | (index + 1);
            if (!seen[index]) ++unique;
            seen[index] = true;
        }
        vm.recordLogs();
        publishDigests(digests(ids, OK));
        Vm.Log[] memory logs = vm.getRecordedLogs();
        vm.assertEq(countLogs(logs, ITaskBoard.Published.selector), unique, "published");
        vm.assertEq(countLogs(logs, ITaskBoard.Skipped.selector), ids.length - unique, "skipped");
        for (uint64 index; index < tasks; ++index) {
            vm.assertTrue(board.isClosed((index % 7 == 0 ? KEPT : 0) | (index + 1)) == seen[index], "closed");
        }
    }
}
