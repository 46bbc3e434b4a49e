// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {ITaskBoard, ITaskRequester} from "../src/ITaskBoard.sol";
import {vm, Vm} from "./Cheats.sol";
import {Board, KEPT} from "./Board.sol";

/// @notice Does everything that can be done to a board, in any order, and counts from the events what came of it. It is
/// requester, coordinator and, through its callback, an attacker at once.
contract Handler is ITaskRequester {
    ITaskBoard private immutable BOARD;
    uint64 private immutable ANCHOR_NUMBER;
    bytes32 private immutable ANCHOR_HASH;
    uint256 private constant TERMS = 1 << 248 | 1 << 240;

    uint64[] public ids;
    mapping(uint64 id => uint256) public fee;
    mapping(uint64 id => uint256) public results;
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
            (,,,, fee[id],) = abi.decode(log.data, (uint256, bytes32, bytes32, bytes32, uint256, bytes));
        }
        if (signature == ITaskBoard.Published.selector || signature == ITaskBoard.PublishedDocument.selector) {
            ++results[id];
        }
        if (signature == ITaskBoard.Expired.selector) ++expiries[id];
        if (signature == ITaskBoard.Credited.selector) {
            ++payments[id];
            paid[id] += abi.decode(log.data, (uint256));
        }
    }

    function count() external view returns (uint256) {
        return ids.length;
    }

    function submit(uint96 value, uint16 deadlineIn, bool callback, bool enforced) external counted {
        value %= 3;
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
        BOARD.submitBatch{value: total}(requests);
    }

    function publish(uint256 pick, uint8 status) external counted {
        try BOARD.publish(any(pick), status % 6, 1, bytes32(pick), ANCHOR_NUMBER, ANCHOR_HASH) {} catch {}
    }

    function publishDocument(uint256 pick, uint8 status, uint16 length) external counted {
        bytes memory document = new bytes(length % 300);
        try BOARD.publishDocument(any(pick), status % 6, 1, document, ANCHOR_NUMBER, ANCHOR_HASH) {} catch {}
    }

    function publishBatch(uint256[6] calldata picks, uint8 status) external counted {
        ITaskBoard.Result[] memory batch = new ITaskBoard.Result[](picks.length);
        for (uint256 i; i < picks.length; ++i) {
            batch[i] = ITaskBoard.Result(any(picks[i]), uint8(status + i) % 6, 1, new bytes(picks[i] % 300));
        }
        BOARD.publishBatch(batch, ANCHOR_NUMBER, ANCHOR_HASH);
    }

    function publishDigests(uint256[8] calldata picks, uint8 status) external counted {
        bytes memory packed = abi.encodePacked(uint16(1));
        for (uint256 i; i < picks.length; ++i) {
            packed = bytes.concat(packed, abi.encodePacked(any(picks[i]), uint8(status + i) % 6, picks[i]));
        }
        BOARD.publishDigests(packed, ANCHOR_NUMBER, ANCHOR_HASH);
    }

    function publishOnAWrongAnchor(uint256 pick, bytes32 hash, bool packed) external counted {
        if (hash == ANCHOR_HASH) return;
        bytes memory batch = abi.encodePacked(uint16(1), any(pick), uint8(1), hash);
        (bool success,) = address(BOARD)
            .call(
                packed
                    ? abi.encodeCall(ITaskBoard.publishDigests, (batch, ANCHOR_NUMBER, hash))
                    : abi.encodeCall(ITaskBoard.publish, (any(pick), 1, 1, hash, ANCHOR_NUMBER, hash))
            );
        if (success) ++wrongAnchorsTaken;
    }

    function cancel(uint256 pick) external counted {
        try BOARD.cancel(any(pick)) {} catch {}
    }

    function expire(uint256 pick) external counted {
        try BOARD.expire(any(pick)) {} catch {}
    }

    function withdraw() external counted {
        try BOARD.withdraw(payable(address(this))) {} catch {}
    }

    function wait(uint16 time) external {
        _now += time % 1000;
        vm.warp(_now);
    }

    /// @notice Publishes a neighbour, expires it, takes the money and submits more.
    function onTaskResult(uint64 id, uint8 status, bytes32, bytes calldata) external {
        if (msg.sender != address(BOARD)) return;
        uint64 neighbour = any(uint256(id) * 7 + status);
        try BOARD.publish(neighbour, 1, 1, 0, ANCHOR_NUMBER, ANCHOR_HASH) {} catch {}
        try BOARD.publish(id, 1, 1, 0, ANCHOR_NUMBER, ANCHOR_HASH) {} catch {}
        try BOARD.expire(neighbour) {} catch {}
        try BOARD.withdraw(payable(address(this))) {} catch {}
        BOARD.submit(TERMS, 0, 0, 0, "");
    }

    /// @dev Mostly an id that exists; now and then one that does not.
    function any(uint256 pick) private view returns (uint64) {
        if (ids.length == 0 || pick % 16 == 0) return uint64(pick);
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
            uint256 held = board.kept(id).fee;
            vm.assertEq(held, board.isClosed(id) ? 0 : handler.fee(id), "an open task holds its whole fee");
            open += held;
        }
        vm.assertEq(address(board).balance, open + board.credit(address(handler)), "balance");
    }

    function invariant_an_id_never_has_two_results() public view {
        for (uint256 i; i < handler.count(); ++i) {
            uint64 id = handler.ids(i);
            uint256 ends = handler.results(id) + handler.expiries(id);
            vm.assertEq(ends, board.isClosed(id) ? 1 : 0, "one end, and it is on record");
        }
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
