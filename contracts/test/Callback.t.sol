// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {ITaskBoard, ITaskRequester} from "../src/ITaskBoard.sol";
import {vm, Vm} from "./Cheats.sol";
import {Board, answerOf} from "./Board.sol";

abstract contract Requester is ITaskRequester {
    ITaskBoard internal immutable BOARD;

    constructor(ITaskBoard board) {
        BOARD = board;
    }

    function submit(uint256 terms) external payable returns (uint64) {
        return BOARD.submit{value: msg.value}(terms, 0, 0, 0, "");
    }
}

contract Notes is Requester {
    uint64 public id;
    uint64 public tag;
    uint8 public status;
    bytes32 public digest;
    bytes public document;
    constructor(ITaskBoard board) Requester(board) {}

    function onTaskResult(uint64 id_, uint64 tag_, uint8 status_, bytes32 digest_, bytes calldata document_) external {
        (id, tag, status, digest, document) = (id_, tag_, status_, digest_, document_);
    }
}

/// @notice Notes the gas it was given and uses all of it.
contract Gauge is Requester {
    uint256 public gasAtStart;

    constructor(ITaskBoard board) Requester(board) {}

    function onTaskResult(uint64, uint64, uint8, bytes32, bytes calldata) external {
        gasAtStart = gasleft();
        while (gasleft() > 100) {}
    }
}

contract Reverts is Requester {
    constructor(ITaskBoard board) Requester(board) {}

    function onTaskResult(uint64, uint64, uint8, bytes32, bytes calldata) external pure {
        revert("no");
    }
}

contract BurnsGas is Requester {
    constructor(ITaskBoard board) Requester(board) {}

    function onTaskResult(uint64, uint64, uint8, bytes32, bytes calldata) external pure {
        assembly {
            invalid()
        }
    }
}

/// @notice Answers with as many bytes as its gas allows.
contract ReturnBomb is Requester {
    constructor(ITaskBoard board) Requester(board) {}

    function onTaskResult(uint64 id, uint64, uint8, bytes32, bytes calldata) external pure {
        assembly {
            if and(id, 1) { revert(0, 200000) }
            return(0, 200000)
        }
    }
}

/// @notice A requester that is a coordinator too and does everything it can while it is called back.
contract Reenters is Requester {
    uint64 private immutable ANCHOR_NUMBER;
    bytes32 private immutable ANCHOR_HASH;
    uint256[] private _others;
    uint256 public published;
    uint256 public refused;

    constructor(ITaskBoard board, uint64 anchorNumber, bytes32 anchorHash) Requester(board) {
        ANCHOR_NUMBER = anchorNumber;
        ANCHOR_HASH = anchorHash;
    }

    /// @param others answers to publish while it is called back
    function watch(uint256[] calldata others) external {
        _others = others;
    }

    function onTaskResult(uint64 id, uint64 tag, uint8, bytes32, bytes calldata) external {
        tryPublish(answerOf(id, tag, 1, 1));
        for (uint256 i; i < _others.length; ++i) {
            tryPublish(_others[i]);
        }
        if (BOARD.credit(address(this)) != 0) BOARD.withdraw(payable(address(this)));
        try BOARD.expire(id, tag) {
            revert("expired too");
        } catch {}
        BOARD.submit(1 << 248 | 1 << 240, 0, 0, 0, "");
    }

    function tryPublish(uint256 answer) private {
        try BOARD.publish(answer, "from inside", ANCHOR_NUMBER, ANCHOR_HASH) {
            ++published;
        } catch {
            ++refused;
        }
    }

    receive() external payable {}
}

contract CallbackTest is Board {
    uint256 private constant GAS = 200_000;

    function test_the_requester_is_told_the_digest() public {
        Notes who = new Notes(board);
        uint64 id = noted(who.submit(terms(0, GAS, 0)), address(who), terms(0, GAS, 0), 0);
        expectCalled(id, address(who), true);
        publish(id, 2);
        vm.assertEq(who.id(), id, "id");
        vm.assertEq(who.tag(), tags[id], "tag");
        vm.assertEq(who.status(), 2, "status");
        vm.assertEq(who.digest(), DIGEST, "digest");
        vm.assertEq(who.document(), "", "document");
    }

    function test_the_requester_is_told_the_document_and_its_digest() public {
        Notes who = new Notes(board);
        uint64 id = noted(who.submit(terms(0, GAS, 0)), address(who), terms(0, GAS, 0), 0);
        bytes memory document = '{"status":"ok","value":144}';
        publishDocument(id, OK, document);
        vm.assertEq(who.digest(), sha256(document), "digest");
        vm.assertEq(who.document(), document, "document");
    }

    function test_t7_the_digest_of_an_empty_document_is_the_sha256_of_nothing() public {
        Notes who = new Notes(board);
        uint64 id = noted(who.submit(terms(0, GAS, 0)), address(who), terms(0, GAS, 0), 0);
        publishDocument(id, OK, "");
        vm.assertEq(who.digest(), sha256(""), "digest");
        id = noted(who.submit(terms(0, GAS, 0)), address(who), terms(0, GAS, 0), 0);
        ITaskBoard.Result[] memory results = new ITaskBoard.Result[](1);
        results[0] = ITaskBoard.Result(answer(id, 2), "");
        publishBatch(results);
        vm.assertEq(who.id(), id, "the batch calls too");
        vm.assertEq(who.digest(), sha256(""), "digest in a batch");
    }

    /// A rejection earns nothing that could pay for a call: none of the four ways to publish it makes one, and none of
    /// them needs the gas for one.
    function test_t1_nobody_is_called_for_a_rejection() public {
        Gauge who = new Gauge(board);
        uint64[4] memory ids;
        for (uint256 i; i < 4; ++i) {
            ids[i] = noted(who.submit{value: i}(terms(0, 1_000_000, 0)), address(who), terms(0, 1_000_000, 0), i);
        }
        vm.recordLogs();
        vm.roll(anchorNumber + 1);
        vm.startPrank(COORDINATOR);
        board.publish{gas: 100_000}(answer(ids[0], REJECTED), DIGEST, anchorNumber, anchorHash);
        board.publishDocument{gas: 100_000}(answer(ids[1], REJECTED), "{}", anchorNumber, anchorHash);
        ITaskBoard.Result[] memory results = new ITaskBoard.Result[](1);
        results[0] = ITaskBoard.Result(answer(ids[2], REJECTED), "{}");
        board.publishBatch{gas: 100_000}(results, anchorNumber, anchorHash);
        bytes memory packed = bytes.concat(hex"0001", record(ids[3], REJECTED, DIGEST));
        board.publishDigests{gas: 100_000}(packed, anchorNumber, anchorHash);
        vm.stopPrank();
        Vm.Log[] memory logs = vm.getRecordedLogs();
        vm.assertEq(countLogs(logs, ITaskBoard.CallbackCalled.selector), 0, "called");
        vm.assertEq(who.gasAtStart(), 0, "nothing ran");
        for (uint256 i; i < 4; ++i) {
            vm.assertTrue(board.isClosed(ids[i]), "closed");
        }
        vm.assertEq(board.credit(address(who)), 6, "refunded");
    }

    function test_a_failing_callback_changes_nothing() public {
        Requester[3] memory all = [Requester(new Reverts(board)), new BurnsGas(board), new ReturnBomb(board)];
        for (uint256 i; i < all.length; ++i) {
            uint64 id = all[i].submit{value: 1}(terms(0, GAS, 0));
            noted(id, address(all[i]), terms(0, GAS, 0), 1);
            bool success = i == 2 && id & 1 == 0;
            expectPublished(id, OK, DIGEST);
            expectCalled(id, address(all[i]), success);
            publish(id, OK);
            vm.assertTrue(board.isClosed(id), "closed");
        }
        vm.assertEq(board.credit(COORDINATOR), 3, "paid");
    }

    function test_a_return_bomb_costs_what_it_asked_for_and_no_more() public {
        ReturnBomb who = new ReturnBomb(board);
        who.submit(terms(0, GAS, 0));
        uint64 id = noted(who.submit(terms(0, GAS, 0)), address(who), terms(0, GAS, 0), 0);
        expectCalled(id, address(who), true);
        publish(id, OK);
        vm.assertLe(vm.lastCallGas().gasTotalUsed, 21_000 + GAS + 90_000, "gas");
    }

    function test_an_account_without_code_can_be_called() public {
        uint64 id = submit(0, terms(0, 30_000, 0));
        expectCalled(id, REQUESTER, true);
        publish(id, OK);
    }

    /// Whatever gas a publisher sends: either nothing happens or the requester had all the gas it asked for.
    function testFuzz_a_stingy_publisher_publishes_nothing(uint256 gas_, uint32 callbackGas) public {
        callbackGas = 100_000 + callbackGas % 900_000;
        gas_ = callbackGas + gas_ % 400_000;
        Gauge who = new Gauge(board);
        uint64 id = who.submit{value: 1}(terms(0, callbackGas, 0));
        noted(id, address(who), terms(0, callbackGas, 0), 1);
        bytes memory document = new bytes(256);
        vm.roll(anchorNumber + 1);
        vm.prank(COORDINATOR);
        try board.publishDocument{gas: gas_}(answer(id, OK), document, anchorNumber, anchorHash) {
            vm.assertGe(who.gasAtStart() + 1_000, callbackGas, "with all the gas");
        } catch {
            vm.assertFalse(board.isClosed(id), "open");
            vm.assertEq(who.gasAtStart(), 0, "not called");
        }
    }

    function test_too_little_gas_reverts_or_skips_with_its_reason() public {
        Notes who = new Notes(board);
        uint64 id = noted(who.submit(terms(0, 1_000_000, 0)), address(who), terms(0, 1_000_000, 0), 0);
        uint64 free = submitFree();
        vm.roll(anchorNumber + 1);
        expectRevert(ITaskBoard.NotEnoughGas.selector, id);
        vm.prank(COORDINATOR);
        board.publish{gas: 1_000_000}(answer(id, OK), DIGEST, anchorNumber, anchorHash);
        expectSkipped(id, ITaskBoard.SkipReason.NotEnoughGas);
        bytes memory packed = bytes.concat(hex"0001", record(id, OK, DIGEST), record(free, OK, DIGEST));
        vm.prank(COORDINATOR);
        board.publishDigests{gas: 1_000_000}(packed, anchorNumber, anchorHash);
        vm.assertFalse(board.isClosed(id), "open");
        vm.assertTrue(board.isClosed(free), "the other is published");
    }

    function test_a_reentrant_callback_in_a_single_publication_gains_nothing() public {
        (Reenters who, uint64 id) = reentrant();
        publish(id, OK);
        vm.assertEq(who.published(), 0, "published");
        vm.assertEq(who.refused(), 1, "refused");
        vm.assertEq(board.credit(COORDINATOR), 7, "paid once");
        vm.assertEq(board.taskCount(), 2, "it may submit");
    }

    function test_a_reentrant_callback_in_a_batch_of_digests_gains_nothing() public {
        (Reenters who, uint64 id) = reentrant();
        uint64 a = submitFree();
        uint64 b = submitFree();
        uint64 c = submit(100, terms(0, 0, 0));
        who.watch(answers(a, b, c));
        // `a` is closed by the batch before the callback, `b` and `c` by the callback before the batch.
        bytes memory packed = bytes.concat(hex"0001", record(a, OK, DIGEST), record(id, OK, DIGEST));
        packed = bytes.concat(packed, record(b, OK, DIGEST), record(c, OK, DIGEST));
        vm.recordLogs();
        publishDigests(packed);
        checkReentrantBatch(who, vm.getRecordedLogs(), ITaskBoard.Published.selector, 4);
        vm.assertTrue(board.isClosed(a) && board.isClosed(b) && board.isClosed(c) && board.isClosed(id), "closed");
    }

    function test_a_reentrant_callback_in_a_batch_of_documents_gains_nothing() public {
        (Reenters who, uint64 id) = reentrant();
        uint64 a = submitFree();
        uint64 b = submitFree();
        uint64 c = submit(100, terms(0, 0, 0));
        who.watch(answers(a, b, c));
        ITaskBoard.Result[] memory results = new ITaskBoard.Result[](4);
        results[0] = ITaskBoard.Result(answer(a, OK), "a");
        results[1] = ITaskBoard.Result(answer(id, OK), "id");
        results[2] = ITaskBoard.Result(answer(b, OK), "b");
        results[3] = ITaskBoard.Result(answer(c, OK), "c");
        vm.recordLogs();
        publishBatch(results);
        checkReentrantBatch(who, vm.getRecordedLogs(), ITaskBoard.PublishedDocument.selector, 2);
    }

    function reentrant() private returns (Reenters who, uint64 id) {
        who = new Reenters(board, anchorNumber, anchorHash);
        vm.prank(OWNER);
        board.setCoordinator(0, address(who), true);
        uint256 terms_ = terms(NOW + 1000, 900_000, 0);
        id = noted(who.submit{value: 7}(terms_), address(who), terms_, 7);
    }

    function answers(uint64 a, uint64 b, uint64 c) private view returns (uint256[] memory all) {
        all = new uint256[](3);
        (all[0], all[1], all[2]) = (answer(a, OK), answer(b, OK), answer(c, OK));
    }

    function checkReentrantBatch(Reenters who, Vm.Log[] memory logs, bytes32 event_, uint256 published) private view {
        vm.assertEq(countLogs(logs, event_), published, "published");
        vm.assertEq(countLogs(logs, ITaskBoard.Skipped.selector), 2, "what the callback published is skipped");
        vm.assertEq(who.published(), 2, "published inside");
        vm.assertEq(who.refused(), 2, "refused inside: its own and the one before it");
        vm.assertEq(board.credit(COORDINATOR), 7, "the batch earned one fee");
        vm.assertEq(address(who).balance, 100, "the callback the other");
        vm.assertEq(address(board).balance, 7, "and nothing else is left");
    }

    function expectCalled(uint64 id, address who, bool success) private {
        vm.expectEmit(address(board));
        emit ITaskBoard.CallbackCalled(id, who, success);
    }
}
