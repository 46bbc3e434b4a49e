// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {ITaskBoard} from "../src/ITaskBoard.sol";
import {vm, Vm} from "./Cheats.sol";
import {Board, KEPT, AGAIN, answerOf} from "./Board.sol";

contract PublishTest is Board {
    /// @dev The code of EIP-2935's contract.
    bytes private constant HISTORY_CODE =
        hex"3373fffffffffffffffffffffffffffffffffffffffe14604657602036036042575f35600143038111604257611fff81430311604257611fff9006545f5260205ff35b5f5ffd5b5f35611fff60014303065500";

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
        emit ITaskBoard.PublishedDocument(id, COORDINATOR, logged(id, 2), document);
        publishDocument(id, 2, document);
        id = submitFree();
        expectRevert(ITaskBoard.DocumentTooLarge.selector, 257);
        publishDocument(id, 2, new bytes(257));
    }

    function test_only_coordinators_of_the_domain_publish() public {
        vm.prank(OWNER);
        board.registerDomain("second");
        uint64 id = submitFree();
        uint64 second = submit(0, terms(0, 0, 0) | uint256(1) << 224);
        vm.roll(anchorNumber + 1);
        vm.expectRevert(abi.encodeWithSelector(ITaskBoard.NotCoordinator.selector, 0, STRANGER));
        vm.prank(STRANGER);
        board.publish(answer(id, OK), DIGEST, anchorNumber, anchorHash);
        vm.expectRevert(abi.encodeWithSelector(ITaskBoard.NotCoordinator.selector, 1, COORDINATOR));
        publish(second, OK);
    }

    function test_only_kept_tasks_that_exist_and_known_statuses_are_published() public {
        uint64 id = submitFree();
        uint8[6] memory wrong = [0, 5, 127, AGAIN, AGAIN | 5, 255];
        for (uint256 i; i < wrong.length; ++i) {
            expectRevert(ITaskBoard.InvalidAnswer.selector, answer(id, wrong[i]));
            publish(id, wrong[i]);
        }
        expectRevert(ITaskBoard.InvalidAnswer.selector, answer(id, OK) | 1 << 152);
        publishAnswer(answer(id, OK) | 1 << 152);
        expectRevert(ITaskBoard.UnknownTask.selector, KEPT | 1);
        publish(KEPT | 1, OK);
    }

    function testFuzz_a_wrong_anchor_never_publishes(uint256 number, bytes32 hash) public {
        uint64 id = submit(1 ether, terms(0, 0, 0));
        vm.assume(hash != blockhash(number) || hash == 0);
        bytes memory wrong = abi.encodeWithSelector(ITaskBoard.WrongAnchor.selector, number, hash, blockhash(number));
        vm.startPrank(COORDINATOR);
        vm.expectRevert(wrong);
        board.publish(answer(id, OK), DIGEST, number, hash);
        vm.expectRevert(wrong);
        board.publishDocument(answer(id, OK), "{}", number, hash);
        vm.expectRevert(wrong);
        board.publishBatch(new ITaskBoard.Result[](1), number, hash);
        vm.expectRevert(wrong);
        board.publishDigests(digests(list(id), OK), number, hash);
        vm.assertFalse(board.isClosed(id), "open");
    }

    function test_an_anchor_is_not_too_old_and_not_the_current_block() public {
        uint64 id = submitFree();
        bytes memory wrong = abi.encodeWithSelector(ITaskBoard.WrongAnchor.selector, anchorNumber, anchorHash, 0);
        vm.startPrank(COORDINATOR);
        vm.roll(anchorNumber + 257);
        vm.expectRevert(wrong);
        board.publish(answer(id, OK), DIGEST, anchorNumber, anchorHash);
        vm.roll(anchorNumber);
        vm.expectRevert(wrong);
        board.publish(answer(id, OK), DIGEST, anchorNumber, anchorHash);
        vm.expectRevert(abi.encodeWithSelector(ITaskBoard.WrongAnchor.selector, 5000, 0, 0));
        board.publish(answer(id, OK), DIGEST, 5000, 0);
    }

    /// On a chain with EIP-2935 an anchor reaches 8191 blocks back; what answers there in another way is no hash.
    function test_t6_the_history_of_a_chain_extends_an_anchor_s_reach() public {
        address history = 0x0000F90827F1C53a10cb7A02335B175320002935;
        uint64 id = submit(1 ether, terms(0, 0, 0));
        bytes memory wrong = abi.encodeWithSelector(ITaskBoard.WrongAnchor.selector, anchorNumber, anchorHash, 0);
        vm.startPrank(COORDINATOR);
        vm.roll(anchorNumber + 300);
        vm.etch(history, "");
        vm.expectRevert(wrong);
        board.publish(answer(id, OK), DIGEST, anchorNumber, anchorHash);
        vm.etch(history, hex"5b5f56"); // never ends
        vm.expectRevert(wrong);
        board.publish(answer(id, OK), DIGEST, anchorNumber, anchorHash);
        vm.etch(history, HISTORY_CODE);
        vm.expectRevert(wrong);
        board.publish(answer(id, OK), DIGEST, anchorNumber, anchorHash); // nothing is stored
        vm.store(history, bytes32(uint256(anchorNumber) % 8191), anchorHash);
        vm.roll(anchorNumber + 8192);
        vm.expectRevert(wrong);
        board.publish(answer(id, OK), DIGEST, anchorNumber, anchorHash);
        vm.roll(anchorNumber);
        vm.expectRevert(wrong);
        board.publish(answer(id, OK), DIGEST, anchorNumber, anchorHash);
        vm.roll(anchorNumber + 8191);
        vm.expectRevert(
            abi.encodeWithSelector(ITaskBoard.WrongAnchor.selector, anchorNumber, bytes32("other"), anchorHash)
        );
        board.publish(answer(id, OK), DIGEST, anchorNumber, "other");
        board.publish(answer(id, OK), DIGEST, anchorNumber, anchorHash);
        vm.assertEq(board.credit(COORDINATOR), 1 ether, "paid");
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
        results[0] = ITaskBoard.Result(answer(a, OK), "a");
        results[1] = ITaskBoard.Result(answer(a, OK), "again");
        results[2] = ITaskBoard.Result(answer(b, 0), "no status");
        results[3] = ITaskBoard.Result(answer(b, REJECTED), "b");
        results[4] = ITaskBoard.Result(answer(KEPT | 9, OK), "unknown");
        results[5] = ITaskBoard.Result(answer(c, OK), new bytes(257));
        results[6] = ITaskBoard.Result(answer(1 << 48 | c, OK), "other domain");
        results[7] = ITaskBoard.Result(answer(c, OK), "c");
        vm.recordLogs();
        publishBatch(results);
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
        publishBatch(new ITaskBoard.Result[](0));
    }

    function test_a_bad_record_never_sinks_a_batch_of_digests() public {
        uint64 a = submitFree();
        uint64 b = submit(1 ether, terms(0, 0, 0));
        uint64 c = submitFree();
        bytes memory packed = bytes.concat(hex"0007", record(a, OK, DIGEST), record(a, OK, DIGEST));
        packed = bytes.concat(packed, record(b, 5, DIGEST), record(b, OK, DIGEST), record(b, OK, DIGEST));
        packed = bytes.concat(packed, record(KEPT | 9, OK, DIGEST), record(uint64(1) << 48 | c, OK, DIGEST));
        packed = bytes.concat(packed, record(c, 0, DIGEST), record(c, OK, DIGEST));
        vm.recordLogs();
        publishDigests(packed);
        Vm.Log[] memory logs = vm.getRecordedLogs();
        vm.assertEq(countLogs(logs, ITaskBoard.Published.selector), 3, "published");
        uint8[6] memory reasons = [1, 5, 1, 3, 2, 5];
        uint256 next;
        for (uint256 i; i < logs.length; ++i) {
            if (logs[i].topics[0] == ITaskBoard.Published.selector) {
                uint64 id = uint64(uint256(logs[i].topics[1]));
                vm.assertEq(logs[i].data, abi.encode(answerOf(anchorNumber, tags[id], 7, OK), DIGEST), "data");
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
        vm.assume(length < 51 || (length - 2) % 49 != 0);
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
            noted(ids[i], REQUESTER, terms(0, 0, 0), index % 7 == 0 ? 1 : 0);
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

    // ------------------------------------------------------------------ the right task

    function test_t3_a_task_that_does_not_exist_yet_cannot_be_closed() public {
        submitFree();
        uint64[4] memory none = [uint64(2), 0, 1 << 40, KEPT | 2];
        for (uint256 i; i < none.length; ++i) {
            uint64 id = none[i];
            expectRevert(ITaskBoard.UnknownTask.selector, id);
            publish(id, OK);
            expectRevert(ITaskBoard.UnknownTask.selector, id);
            publish(id, id & KEPT == 0 ? AGAIN | OK : OK);
            expectRevert(ITaskBoard.UnknownTask.selector, id);
            publishDocument(id, OK, "{}");
            ITaskBoard.Result[] memory results = new ITaskBoard.Result[](1);
            results[0] = ITaskBoard.Result(answer(id, OK), "{}");
            expectSkipped(id, ITaskBoard.SkipReason.UnknownTask);
            publishBatch(results);
            expectSkipped(id, ITaskBoard.SkipReason.UnknownTask);
            publishDigests(digests(list(id), OK));
            vm.assertFalse(board.isClosed(id), "open");
        }
        // 255 ids ahead in the word of one that exists: only that one is closed.
        uint64[] memory ids = new uint64[](256);
        for (uint64 i; i < 256; ++i) {
            ids[i] = i;
        }
        vm.recordLogs();
        publishDigests(digests(ids, OK));
        Vm.Log[] memory logs = vm.getRecordedLogs();
        vm.assertEq(countLogs(logs, ITaskBoard.Published.selector), 1, "published");
        vm.assertEq(countLogs(logs, ITaskBoard.Skipped.selector), 255, "skipped");
        uint64 born = submitFree();
        vm.assertFalse(board.isClosed(born), "born open");
        publish(born, OK);
    }

    /// With a tag that is not its own a kept task is unknown, on every way to publish, and nothing happens to it.
    function testFuzz_a_kept_task_is_paid_for_its_own_tag_alone(uint64 tag, uint8 way) public {
        uint64 id = submit(1 ether, terms(NOW + 60, 0, 0));
        uint64 own = tags[id];
        vm.assume(tag != own);
        tags[id] = tag;
        publishInAnyWay(id, OK, way, ITaskBoard.SkipReason.UnknownTask, "");
        vm.assertFalse(board.isClosed(id), "open");
        vm.assertEq(board.kept(id, own).fee, 1 ether, "held");
        vm.assertEq(board.credit(COORDINATOR), 0, "not paid");
        tags[id] = own;
        publishInAnyWay(id, OK, way, ITaskBoard.SkipReason.None, "");
        vm.assertEq(board.credit(COORDINATOR), 1 ether, "paid");
    }

    /// An anchor before the task's own block, by any number of blocks, is refused for a kept task.
    function testFuzz_t4_an_anchor_before_a_kept_task_is_refused(uint8 before, uint8 way, bool deadline) public {
        before = before == 0 ? 1 : before;
        vm.roll(anchorNumber + before);
        uint64 id = submit(1 ether, terms(deadline ? NOW + 60 : 0, 0, 0));
        vm.assertEq(board.kept(id, tags[id]).submittedIn, anchorNumber + before, "block");
        bytes memory reverts = abi.encodeWithSelector(
            ITaskBoard.AnchorBeforeTask.selector, id, anchorNumber, uint256(anchorNumber) + before
        );
        publishInAnyWay(id, OK, way, ITaskBoard.SkipReason.AnchorBeforeTask, reverts);
        vm.assertFalse(board.isClosed(id), "open");
        uint64 later = anchorNumber + before;
        vm.roll(uint256(later) + 1);
        vm.setBlockhash(later, keccak256("later"));
        (anchorNumber, anchorHash) = (later, keccak256("later"));
        publishInAnyWay(id, OK, way, ITaskBoard.SkipReason.None, "");
        vm.assertEq(board.credit(COORDINATOR), 1 ether, "paid");
    }

    /// Readers see the anchor of what was published for a free task.
    function test_t4_a_publication_says_its_anchor() public {
        vm.roll(anchorNumber + 200);
        uint64 id = submitFree();
        vm.expectEmit(address(board));
        emit ITaskBoard.Published(id, COORDINATOR, answerOf(anchorNumber, tags[id], 1, OK), DIGEST);
        vm.prank(COORDINATOR);
        board.publish(answer(id, OK), DIGEST, anchorNumber, anchorHash);
    }

    /// A publication with a wrong tag closes a free task's id. Its own is published all the same, in any way.
    function testFuzz_a_free_task_stays_answerable_after_a_wrong_tag(uint64 tag, uint8 wrongWay, uint8 way) public {
        uint64 id = submitFree();
        uint64 own = tags[id];
        vm.assume(tag != own);
        tags[id] = tag;
        publishInAnyWay(id, OK, wrongWay, ITaskBoard.SkipReason.None, "");
        tags[id] = own;
        bytes memory closed = abi.encodeWithSelector(ITaskBoard.AlreadyClosed.selector, id);
        publishInAnyWay(id, OK, way, ITaskBoard.SkipReason.AlreadyClosed, closed);
        publishInAnyWay(id, AGAIN | OK, way, ITaskBoard.SkipReason.None, "");
    }

    function test_again_closes_what_is_open_and_never_a_kept_task() public {
        uint64 id = submitFree();
        expectPublished(id, OK, DIGEST);
        publish(id, OK);
        uint64 open_ = submitFree();
        vm.expectEmit(address(board));
        emit ITaskBoard.Published(open_, COORDINATOR, logged(open_, REJECTED), DIGEST);
        publish(open_, AGAIN | REJECTED);
        vm.assertTrue(board.isClosed(open_), "closed");
        uint64 keptId = submit(1 ether, terms(0, 0, 0));
        for (uint8 way; way < 4; ++way) {
            uint256 word = answer(keptId, AGAIN | OK);
            bytes memory reverts = abi.encodeWithSelector(ITaskBoard.InvalidAnswer.selector, word);
            publishInAnyWay(keptId, AGAIN | OK, way, ITaskBoard.SkipReason.InvalidAnswer, reverts);
        }
        publish(keptId, OK);
        vm.assertEq(board.credit(COORDINATOR), 1 ether, "paid once");
    }

    /// In a batch of digests, `again` works beside others of its word and for a word that is not at hand yet.
    function test_again_in_a_batch_keeps_the_others_as_they_are() public {
        uint64 a = submitFree();
        uint64 b = submitFree();
        uint64 c = submitFree();
        publish(a, OK);
        publish(b, OK);
        bytes memory packed = bytes.concat(hex"0001", record(a, AGAIN | OK, DIGEST), record(c, OK, DIGEST));
        packed = bytes.concat(packed, record(b, AGAIN | REJECTED, DIGEST), record(b, OK, DIGEST));
        vm.recordLogs();
        publishDigests(packed);
        Vm.Log[] memory logs = vm.getRecordedLogs();
        vm.assertEq(countLogs(logs, ITaskBoard.Published.selector), 3, "published");
        vm.assertEq(countLogs(logs, ITaskBoard.Skipped.selector), 1, "skipped");
        vm.assertEq(logs[2].data, abi.encode(logged(b, REJECTED), DIGEST), "the bit is not logged");
        vm.assertTrue(board.isClosed(a) && board.isClosed(b) && board.isClosed(c), "closed");
    }

    /// @dev Publishes by one of the four functions and expects what comes of it.
    function publishInAnyWay(uint64 id, uint8 status, uint8 way, ITaskBoard.SkipReason reason, bytes memory reverts)
        private
    {
        if (reason == ITaskBoard.SkipReason.UnknownTask) {
            reverts = abi.encodeWithSelector(ITaskBoard.UnknownTask.selector, id);
        }
        uint256 word = answer(id, status);
        ITaskBoard.Result[] memory results = new ITaskBoard.Result[](1);
        results[0] = ITaskBoard.Result(word, "{}");
        bytes memory packed = bytes.concat(hex"0001", record(id, status, DIGEST));
        if (block.number == anchorNumber) vm.roll(anchorNumber + 1);
        if (reason != ITaskBoard.SkipReason.None) {
            if (way % 4 < 2) vm.expectRevert(reverts);
            else expectSkipped(id, reason);
        } else if (way % 2 == 0) {
            expectPublished(id, status & 0x7f, DIGEST);
        }
        vm.prank(COORDINATOR);
        if (way % 4 == 0) board.publish(word, DIGEST, anchorNumber, anchorHash);
        else if (way % 4 == 1) board.publishDocument(word, "{}", anchorNumber, anchorHash);
        else if (way % 4 == 2) board.publishDigests(packed, anchorNumber, anchorHash);
        else board.publishBatch(results, anchorNumber, anchorHash);
    }
}
