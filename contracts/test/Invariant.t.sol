// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {ITaskBoard, ITaskRequester} from "../src/ITaskBoard.sol";
import {vm, Vm} from "./Cheats.sol";
import {Board, KEPT, AGAIN, answerOf} from "./Board.sol";

/// @notice Does everything that can be done to a board, in any order, and counts from the events what came of it. It is
/// requester, coordinator and, through its callback, an attacker at once.
contract Handler is ITaskRequester {
    ITaskBoard private immutable BOARD;
    uint64 private immutable ANCHOR_NUMBER;
    bytes32 private immutable ANCHOR_HASH;
    uint256 private constant TERMS = 1 << 248 | 1 << 240;

    uint64[] public ids;
    mapping(uint64 id => bool) public known;
    mapping(uint64 id => uint64) public tag;
    mapping(uint64 id => uint256) public fee;
    mapping(uint64 id => uint256) public results;
    /// @dev Whether anybody tried to publish the id again.
    mapping(uint64 id => bool) public again;
    /// @dev Publications of an id that was not given to anybody by then.
    uint256 public early;
    /// @dev Publications, ends and payments of a kept task that no submission has that tag and id.
    uint256 public strange;
    mapping(uint64 id => uint256) public expiries;
    mapping(uint64 id => uint256) public payments;
    mapping(uint64 id => uint256) public paid;
    uint256 public wrongAnchorsTaken;
    uint256 private _now;

    constructor(ITaskBoard board, uint64 anchorNumber, bytes32 anchorHash) {
        (BOARD, ANCHOR_NUMBER, ANCHOR_HASH) = (board, anchorNumber, anchorHash);
        _now = block.timestamp;
    }

    receive() external payable {}

    modifier counted() {
        vm.warp(_now);
        vm.roll(ANCHOR_NUMBER + 1);
        vm.recordLogs();
        _;
        Vm.Log[] memory logs = vm.getRecordedLogs();
        for (uint256 i; i < logs.length; ++i) {
            if (logs[i].emitter == address(BOARD)) count(logs[i]);
        }
    }

    function count(Vm.Log memory log) private {
        bytes32 signature = log.topics[0];
        uint64 id = log.topics.length > 1 ? uint64(uint256(log.topics[1])) : 0;
        if (signature == ITaskBoard.Submitted.selector) {
            ids.push(id);
            known[id] = true;
            tag[id] = uint64(bytes8(keccak256(bytes.concat(log.topics[1], log.topics[2], log.data))));
            (,,,, fee[id],) = abi.decode(log.data, (uint256, bytes32, bytes32, bytes32, uint256, bytes));
        }
        if (signature == ITaskBoard.Published.selector || signature == ITaskBoard.PublishedDocument.selector) {
            ++results[id];
            if (id & (KEPT - 1) == 0 || id & (KEPT - 1) > ids.length) ++early;
            countKept(id, uint64(uint256(bytes32(log.data)) >> 24));
        }
        if (signature == ITaskBoard.Expired.selector) {
            ++expiries[id];
            countKept(id, abi.decode(log.data, (uint64)));
        }
        if (signature == ITaskBoard.Credited.selector) {
            if (!known[id]) ++strange;
            ++payments[id];
            paid[id] += abi.decode(log.data, (uint256));
        }
    }

    function countKept(uint64 id, uint64 tag_) private {
        if (id & KEPT != 0 && (!known[id] || tag[id] != tag_)) ++strange;
    }

    function count() external view returns (uint256) {
        return ids.length;
    }

    function submit(uint96 value, uint16 deadlineIn, bool callback, bool enforced) external counted {
        value %= 3;
        // A task of the anchor's block can be published on it, one of the next block cannot.
        if (deadlineIn % 8 != 0) vm.roll(ANCHOR_NUMBER);
        uint256 deadline = deadlineIn % 4 == 0 || enforced ? _now + 1 + deadlineIn : 0;
        uint256 terms = TERMS | deadline << 40 | (callback ? uint256(600_000) << 8 : 0) | (enforced ? 1 : 0);
        BOARD.submit{value: value}(terms, 0, 0, 0, "");
    }

    function submitBatch(uint96[4] calldata fees) external counted {
        ITaskBoard.Request[] memory requests = new ITaskBoard.Request[](fees.length);
        uint256 total;
        for (uint256 i; i < fees.length; ++i) {
            requests[i].terms = TERMS;
            requests[i].fee = fees[i] % 3;
            total += requests[i].fee;
        }
        vm.roll(ANCHOR_NUMBER);
        BOARD.submitBatch{value: total}(requests);
    }

    function publish(uint256 pick, uint8 status) external counted {
        try BOARD.publish(answer(pick, status), bytes32(pick), ANCHOR_NUMBER, ANCHOR_HASH) {} catch {}
    }

    function publishDocument(uint256 pick, uint8 status, uint16 length) external counted {
        bytes memory document = new bytes(length % 300);
        try BOARD.publishDocument(answer(pick, status), document, ANCHOR_NUMBER, ANCHOR_HASH) {} catch {}
    }

    function publishBatch(uint256[6] calldata picks, uint8 status) external counted {
        ITaskBoard.Result[] memory batch = new ITaskBoard.Result[](picks.length);
        for (uint256 i; i < picks.length; ++i) {
            batch[i] = ITaskBoard.Result(answer(picks[i], status), new bytes(picks[i] % 300));
        }
        BOARD.publishBatch(batch, ANCHOR_NUMBER, ANCHOR_HASH);
    }

    function publishDigests(uint256[8] calldata picks, uint8 status) external counted {
        bytes memory packed = abi.encodePacked(uint16(1));
        for (uint256 i; i < picks.length; ++i) {
            uint256 word = answer(picks[i], status);
            packed = bytes.concat(
                packed, abi.encodePacked(uint64(word >> 88), uint64(word >> 24), uint8(word), bytes32(picks[i]))
            );
        }
        BOARD.publishDigests(packed, ANCHOR_NUMBER, ANCHOR_HASH);
    }

    function publishOnAWrongAnchor(uint256 pick, bytes32 hash, bool packed) external counted {
        if (hash == ANCHOR_HASH) return;
        uint64 id = any(pick);
        bytes memory batch = abi.encodePacked(uint16(1), id, tag[id], uint8(1), hash);
        (bool success,) = address(BOARD)
            .call(
                packed
                    ? abi.encodeCall(ITaskBoard.publishDigests, (batch, ANCHOR_NUMBER, hash))
                    : abi.encodeCall(ITaskBoard.publish, (answerOf(id, tag[id], 1, 1), hash, ANCHOR_NUMBER, hash))
            );
        if (success) ++wrongAnchorsTaken;
    }

    function cancel(uint256 pick) external counted {
        (uint64 id, uint64 tag_) = tagged(pick);
        try BOARD.cancel(id, tag_) {} catch {}
    }

    function expire(uint256 pick) external counted {
        (uint64 id, uint64 tag_) = tagged(pick);
        try BOARD.expire(id, tag_) {} catch {}
    }

    function withdraw() external counted {
        try BOARD.withdraw(payable(address(this))) {} catch {}
    }

    function wait(uint16 time) external {
        _now += time % 1000;
        vm.warp(_now);
    }

    /// @notice Publishes a neighbour, expires it, takes the money and submits more.
    function onTaskResult(uint64 id, uint64 tag_, uint8 status, bytes32, bytes calldata) external {
        if (msg.sender != address(BOARD)) return;
        uint64 neighbour = any(uint256(id) * 7 + status);
        try BOARD.publish(answerOf(neighbour, tag[neighbour], 1, 1), 0, ANCHOR_NUMBER, ANCHOR_HASH) {} catch {}
        try BOARD.publish(answerOf(id, tag_, 1, 1), 0, ANCHOR_NUMBER, ANCHOR_HASH) {} catch {}
        try BOARD.expire(neighbour, tag[neighbour]) {} catch {}
        try BOARD.withdraw(payable(address(this))) {} catch {}
        BOARD.submit(TERMS, 0, 0, 0, "");
    }

    /// @dev An id with a tag that is mostly its own.
    function tagged(uint256 pick) private view returns (uint64 id, uint64 tag_) {
        id = any(pick);
        tag_ = pick % 5 == 0 ? uint64(pick) : tag[id];
    }

    /// @dev Something to publish, sometimes again, sometimes with a status that does not exist.
    function answer(uint256 pick, uint256 status) private returns (uint256) {
        (uint64 id, uint64 tag_) = tagged(pick);
        uint8 byte_ = uint8((status + pick % 6) % 6);
        if (status % 8 == 0) {
            byte_ |= AGAIN;
            again[id] = true;
        }
        return answerOf(id, tag_, 1, byte_);
    }

    /// @dev Mostly an id that exists; now and then one that does not, also a near one.
    function any(uint256 pick) private view returns (uint64) {
        if (ids.length == 0 || pick % 16 == 0) return uint64(pick);
        if (pick % 16 == 1) return uint64(pick) & KEPT | uint64(ids.length + pick % 3);
        return ids[pick % ids.length];
    }
}

contract InvariantTest is Board {
    Handler private handler;

    function setUp() public override {
        super.setUp();
        handler = new Handler(board, anchorNumber, anchorHash);
        vm.deal(address(handler), 1000 ether);
        vm.prank(OWNER);
        board.setCoordinator(0, address(handler), true);
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(handler);
    }

    /// @dev Nobody calls in the board's name: that only the board itself does.
    function targetSenders() external pure returns (address[] memory senders) {
        senders = new address[](1);
        senders[0] = address(0x5E4D);
    }

    function invariant_escrow_equals_the_sum_of_open_fees() public view {
        uint256 open;
        for (uint256 i; i < handler.count(); ++i) {
            uint64 id = handler.ids(i);
            uint256 held = board.kept(id, handler.tag(id)).fee;
            vm.assertEq(held, board.isClosed(id) ? 0 : handler.fee(id), "an open task holds its whole fee");
            open += held;
        }
        vm.assertEq(address(board).balance, open + board.credit(address(handler)), "balance");
    }

    /// Only who asks for it publishes a free task again.
    function invariant_an_id_never_has_two_results() public view {
        for (uint256 i; i < handler.count(); ++i) {
            uint64 id = handler.ids(i);
            uint256 ends = handler.results(id) + handler.expiries(id);
            if (id & KEPT == 0 && handler.again(id)) ends = ends == 0 ? 0 : 1;
            vm.assertEq(ends, board.isClosed(id) ? 1 : 0, "one end, and it is on record");
        }
    }

    function invariant_no_task_is_published_before_it_exists() public view {
        vm.assertEq(handler.early(), 0, "early");
    }

    function invariant_a_tag_that_no_submission_has_never_pays_or_closes_a_kept_task() public view {
        vm.assertEq(handler.strange(), 0, "strange");
    }

    function invariant_each_fee_is_paid_exactly_once() public view {
        for (uint256 i; i < handler.count(); ++i) {
            uint64 id = handler.ids(i);
            bool due = board.isClosed(id) && handler.fee(id) != 0;
            vm.assertEq(handler.payments(id), due ? 1 : 0, "payments");
            vm.assertEq(handler.paid(id), due ? handler.fee(id) : 0, "amount");
        }
    }

    function invariant_a_wrong_anchor_never_publishes() public view {
        vm.assertEq(handler.wrongAnchorsTaken(), 0, "wrong anchors");
    }

    function invariant_sequences_are_dense() public view {
        vm.assertEq(board.taskCount(), handler.count(), "count");
        for (uint256 i; i < handler.count(); ++i) {
            vm.assertEq(handler.ids(i) & (KEPT - 1), i + 1, "sequence");
        }
    }
}
