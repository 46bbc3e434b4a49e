// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {ITaskBoard, ITaskRequester} from "./ITaskBoard.sol";

/// @title TaskBoard
/// @notice Implements `ITaskBoard`; the formats are described there.
/// @dev What a free task costs is the design. Submitting one touches one slot (`_head`); publishing one touches two
/// (the sender's right and the guard word of its id). Everything else is in events.
contract TaskBoard is ITaskBoard {
    // ------------------------------------------------------------------ constants

    /// @inheritdoc ITaskBoard
    uint40 public constant override CANCEL_NOTICE = 600;
    /// @dev The longest `extra`, in bytes.
    uint256 private constant MAX_EXTRA = 1024;
    /// @dev The longest result document that is published as such, in bytes.
    uint256 private constant MAX_DOCUMENT = 256;
    /// @inheritdoc ITaskBoard
    uint256 public constant override MAX_CALLBACK_GAS = 1_000_000;
    /// @dev The longest name of a domain or an engine, in bytes.
    uint256 private constant MAX_NAME = 64;
    /// @dev Gas that must remain beside a callback's own for the item's effects to complete.
    uint256 private constant CALLBACK_RESERVE = 90_000;

    uint256 private constant VERSION = 1;
    uint256 private constant KEPT = 1 << 47;
    uint256 private constant SEQUENCE_MASK = 0x7fffffffffff;
    uint256 private constant ENFORCE_DEADLINE = 1;
    uint256 private constant RECORD = 41;
    uint256 private constant NO_WORD = type(uint256).max;

    // Layout of `_head`.
    // |  0..46  | sequence of the newest task                                    |
    // |  47     | paused                                                         |
    // | 48..63  | number of domains                                              |
    // | 64..79  | number of engines                                              |
    uint256 private constant HEAD_PAUSED = 1 << 47;
    uint256 private constant HEAD_DOMAIN = 1 << 48;
    uint256 private constant HEAD_ENGINE = 1 << 64;

    // ------------------------------------------------------------------ storage

    /// @dev Slot 0, the only one a free submission reads or writes.
    uint256 private _head;
    /// @dev Bit `id & 255` of word `id >> 8`: the task has a result or has expired.
    mapping(uint256 word => uint256 bits) private _closed;
    mapping(uint64 id => Kept) private _kept;
    mapping(address account => uint256) private _credit;
    mapping(uint16 domain => mapping(address account => bool)) private _coordinators;
    address private _owner;
    address private _pendingOwner;

    // ------------------------------------------------------------------ construction

    /// @param owner_ who registers domains, engines and coordinators; domain 0 is registered as "default"
    constructor(address owner_) {
        _owner = owner_;
        emit OwnershipTransferred(address(0), owner_);
        _head = HEAD_DOMAIN;
        emit DomainRegistered(0, "default");
    }

    modifier onlyOwner() {
        if (msg.sender != _owner) revert NotOwner();
        _;
    }

    // ------------------------------------------------------------------ requesters

    /// @inheritdoc ITaskBoard
    function submit(uint256 terms, bytes32 module, bytes32 input, bytes32 entry, bytes calldata extra)
        external
        payable
        returns (uint64 id)
    {
        if (msg.value > type(uint96).max) revert WrongValue(msg.value, type(uint96).max);
        uint256 head = _head;
        if (head & HEAD_PAUSED != 0) revert SubmissionsPaused();
        unchecked {
            ++head; // 2^47 submissions cannot be paid for
        }
        _head = head;
        id = _accept(head, terms, msg.value, extra.length);
        emit Submitted(id, msg.sender, terms, module, input, entry, msg.value, extra);
    }

    /// @inheritdoc ITaskBoard
    function submitBatch(Request[] calldata requests) external payable returns (uint64 first) {
        uint256 head = _head;
        if (head & HEAD_PAUSED != 0) revert SubmissionsPaused();
        if (requests.length == 0) revert MalformedBatch(0);
        uint256 total;
        for (uint256 i; i < requests.length; ++i) {
            Request calldata request = requests[i];
            unchecked {
                ++head;
                total += request.fee;
            }
            uint64 id = _accept(head, request.terms, request.fee, request.extra.length);
            if (i == 0) first = id;
            emit Submitted(
                id, msg.sender, request.terms, request.module, request.input, request.entry, request.fee, request.extra
            );
        }
        if (msg.value != total) revert WrongValue(msg.value, total);
        _head = head;
    }

    /// @inheritdoc ITaskBoard
    function cancel(uint64 id) external {
        _requireOpen(id);
        uint40 effectiveAt = uint40(block.timestamp);
        if (id & KEPT != 0) {
            Kept storage task = _kept[id];
            address requester = task.requester;
            if (requester == address(0)) revert UnknownTask(id);
            if (requester != msg.sender) revert NotRequester(id);
            effectiveAt += CANCEL_NOTICE;
            uint40 deadline = task.deadline;
            if (deadline != 0 && deadline < effectiveAt) effectiveAt = deadline;
            else task.deadline = effectiveAt;
        }
        emit Cancelled(id, msg.sender, effectiveAt);
    }

    /// @inheritdoc ITaskBoard
    function expire(uint64 id) external {
        if (id & KEPT == 0) revert NotKept(id);
        _requireOpen(id);
        Kept memory task = _kept[id];
        if (task.requester == address(0)) revert UnknownTask(id);
        if (task.deadline == 0 || block.timestamp <= task.deadline) revert DeadlineNotPassed(id, task.deadline);
        _closed[id >> 8] |= 1 << (id & 255);
        delete _kept[id];
        emit Expired(id);
        _pay(id, task.requester, task.fee);
    }

    /// @inheritdoc ITaskBoard
    function withdraw(address payable to) external returns (uint256 amount) {
        amount = _credit[msg.sender];
        if (amount == 0) revert NothingToWithdraw(msg.sender);
        if (to == address(0)) revert TransferFailed(to);
        _credit[msg.sender] = 0;
        emit Withdrawn(msg.sender, to, amount);
        bool success;
        assembly ("memory-safe") {
            success := call(gas(), to, amount, 0, 0, 0, 0)
        }
        if (!success) revert TransferFailed(to);
    }

    // ------------------------------------------------------------------ coordinators

    /// @inheritdoc ITaskBoard
    function publish(uint64 id, uint8 status, uint16 engine, bytes32 digest, uint64 anchorNumber, bytes32 anchorHash)
        external
    {
        _requireAnchor(anchorNumber, anchorHash);
        SkipReason reason = _close(id, status);
        if (reason != SkipReason.None) _revert(reason, id, status);
        emit Published(id, msg.sender, status, engine, digest);
        if (id & KEPT != 0) _settle(id, status, digest, msg.data[:0]);
    }

    /// @inheritdoc ITaskBoard
    function publishDocument(
        uint64 id,
        uint8 status,
        uint16 engine,
        bytes calldata document,
        uint64 anchorNumber,
        bytes32 anchorHash
    ) external {
        _requireAnchor(anchorNumber, anchorHash);
        if (document.length > MAX_DOCUMENT) revert DocumentTooLarge(document.length);
        SkipReason reason = _close(id, status);
        if (reason != SkipReason.None) _revert(reason, id, status);
        emit PublishedDocument(id, msg.sender, status, engine, document);
        if (id & KEPT != 0) _settle(id, status, 0, document);
    }

    /// @inheritdoc ITaskBoard
    function publishBatch(Result[] calldata results, uint64 anchorNumber, bytes32 anchorHash) external {
        _requireAnchor(anchorNumber, anchorHash);
        if (results.length == 0) revert MalformedBatch(0);
        for (uint256 i; i < results.length; ++i) {
            Result calldata result = results[i];
            uint64 id = result.id;
            uint8 status = result.status;
            bytes calldata document = result.document;
            SkipReason reason = document.length > MAX_DOCUMENT ? SkipReason.DocumentTooLarge : _close(id, status);
            if (reason != SkipReason.None) {
                emit Skipped(id, reason);
                continue;
            }
            emit PublishedDocument(id, msg.sender, status, result.engine, document);
            if (id & KEPT != 0) _settle(id, status, 0, document);
        }
    }

    /// @inheritdoc ITaskBoard
    /// @dev The closed bits of neighbouring ids are gathered in `bits` and written once. They are written before
    /// anything outside is called, and read anew afterwards: a callback may publish too. `word` is only ever one of
    /// free tasks of a domain that the sender answers for.
    function publishDigests(bytes calldata packed, uint64 anchorNumber, bytes32 anchorHash) external {
        _requireAnchor(anchorNumber, anchorHash);
        if (packed.length < 2 + RECORD || (packed.length - 2) % RECORD != 0) revert MalformedBatch(packed.length);
        uint256 word = NO_WORD; // no id has it: ids end at 64 bits
        uint256 bits;
        uint256 cursor;
        uint256 end;
        uint256 log; // 96 bytes of memory with the data of the `Published` event
        assembly ("memory-safe") {
            cursor := add(packed.offset, 2)
            end := add(packed.offset, packed.length)
            log := mload(0x40)
            mstore(0x40, add(log, 96))
            mstore(add(log, 32), shr(240, calldataload(packed.offset)))
        }
        for (; cursor < end;) {
            uint256 id;
            uint256 status;
            bytes32 digest;
            bool usual;
            assembly ("memory-safe") {
                let first := calldataload(cursor)
                id := shr(192, first)
                status := byte(8, first)
                digest := calldataload(add(cursor, 9))
                cursor := add(cursor, RECORD)
                // In the word at hand and open, with a status that exists.
                usual := and(and(eq(shr(8, id), word), lt(sub(status, 1), 4)), iszero(and(shr(and(id, 255), bits), 1)))
            }
            if (!usual) {
                if (id & KEPT != 0) {
                    if (word != NO_WORD) _closed[word] = bits;
                    word = NO_WORD;
                    _publishKept(uint64(id), uint8(status), uint16(bytes2(packed)), digest);
                    continue;
                }
                SkipReason reason;
                if (!_isStatus(status)) {
                    reason = SkipReason.InvalidStatus;
                } else if (id >> 8 == word) {
                    reason = SkipReason.AlreadyClosed;
                } else if (!_coordinators[uint16(id >> 48)][msg.sender]) {
                    reason = SkipReason.NotCoordinator;
                } else {
                    if (word != NO_WORD) _closed[word] = bits;
                    word = id >> 8;
                    bits = _closed[word];
                    if ((bits >> (id & 255)) & 1 != 0) reason = SkipReason.AlreadyClosed;
                }
                if (reason != SkipReason.None) {
                    emit Skipped(uint64(id), reason);
                    continue;
                }
            }
            bits |= 1 << (id & 255);
            bytes32 topic = Published.selector;
            assembly ("memory-safe") {
                mstore(log, status)
                mstore(add(log, 64), digest)
                log3(log, 96, topic, id, caller())
            }
        }
        if (word != NO_WORD) _closed[word] = bits;
    }

    // ------------------------------------------------------------------ owner

    /// @inheritdoc ITaskBoard
    function registerDomain(string calldata name) external onlyOwner returns (uint16 domain) {
        _requireName(name);
        domain = domainCount();
        if (domain == type(uint16).max) revert Full();
        _head += HEAD_DOMAIN;
        emit DomainRegistered(domain, name);
    }

    /// @inheritdoc ITaskBoard
    function setCoordinator(uint16 domain, address coordinator, bool allowed) external onlyOwner {
        if (domain >= domainCount()) revert UnknownDomain(domain);
        _coordinators[domain][coordinator] = allowed;
        emit CoordinatorSet(domain, coordinator, allowed);
    }

    /// @inheritdoc ITaskBoard
    function registerEngine(string calldata name) external onlyOwner returns (uint16 engine) {
        _requireName(name);
        engine = engineCount();
        if (engine == type(uint16).max) revert Full();
        ++engine;
        _head += HEAD_ENGINE;
        emit EngineRegistered(engine, name);
    }

    /// @inheritdoc ITaskBoard
    function setPaused(bool paused_) external onlyOwner {
        _head = paused_ ? _head | HEAD_PAUSED : _head & ~HEAD_PAUSED;
        emit Paused(paused_);
    }

    /// @inheritdoc ITaskBoard
    function transferOwnership(address to) external onlyOwner {
        _pendingOwner = to;
        emit OwnershipTransferStarted(msg.sender, to);
    }

    /// @inheritdoc ITaskBoard
    function acceptOwnership() external {
        if (msg.sender != _pendingOwner) revert NotPendingOwner();
        emit OwnershipTransferred(_owner, msg.sender);
        _owner = msg.sender;
        _pendingOwner = address(0);
    }

    // ------------------------------------------------------------------ views

    /// @inheritdoc ITaskBoard
    function owner() external view returns (address) {
        return _owner;
    }

    /// @inheritdoc ITaskBoard
    function pendingOwner() external view returns (address) {
        return _pendingOwner;
    }

    /// @inheritdoc ITaskBoard
    function paused() external view returns (bool) {
        return _head & HEAD_PAUSED != 0;
    }

    /// @inheritdoc ITaskBoard
    function taskCount() external view returns (uint64) {
        return uint64(_head & SEQUENCE_MASK);
    }

    /// @inheritdoc ITaskBoard
    function domainCount() public view returns (uint16) {
        return uint16(_head / HEAD_DOMAIN);
    }

    /// @inheritdoc ITaskBoard
    function engineCount() public view returns (uint16) {
        return uint16(_head / HEAD_ENGINE);
    }

    /// @inheritdoc ITaskBoard
    function isCoordinator(uint16 domain, address account) external view returns (bool) {
        return _coordinators[domain][account];
    }

    /// @inheritdoc ITaskBoard
    function isClosed(uint64 id) public view returns (bool) {
        return (_closed[id >> 8] >> (id & 255)) & 1 != 0;
    }

    /// @inheritdoc ITaskBoard
    function kept(uint64 id) external view returns (Kept memory) {
        return _kept[id];
    }

    /// @inheritdoc ITaskBoard
    function credit(address account) external view returns (uint256) {
        return _credit[account];
    }

    // ------------------------------------------------------------------ submission

    /// @dev Checks the terms, names the task and stores it when it is kept.
    /// @param head the head with the task's own sequence
    function _accept(uint256 head, uint256 terms, uint256 fee, uint256 extraLength) private returns (uint64 id) {
        if (terms >> 248 != VERSION) revert UnsupportedVersion(uint8(terms >> 248));
        if (uint8(terms >> 240) == 0) revert InvalidKind(0);
        uint256 domain = uint16(terms >> 224);
        if (domain >= uint16(head / HEAD_DOMAIN)) revert UnknownDomain(uint16(domain));
        uint256 flags = uint8(terms);
        uint256 callbackGas = uint32(terms >> 8);
        if (flags > ENFORCE_DEADLINE || callbackGas > MAX_CALLBACK_GAS) revert InvalidTerms(terms);
        if (extraLength > MAX_EXTRA) revert ExtraTooLong(extraLength);
        id = uint64(domain << 48 | head & SEQUENCE_MASK);
        if (fee | callbackGas | flags != 0) {
            uint40 deadline = uint40(terms >> 40);
            if ((deadline != 0 || flags != 0) && deadline <= block.timestamp) revert InvalidDeadline(deadline);
            id |= uint64(KEPT);
            Kept storage task = _kept[id];
            task.requester = msg.sender;
            task.fee = uint96(fee);
            if (deadline | callbackGas != 0) {
                task.deadline = deadline;
                task.callbackGas = uint32(callbackGas);
            }
        }
    }

    // ------------------------------------------------------------------ publication

    /// @dev The anchor's hash on this chain must be the one the publisher computed on; a block too old has none.
    function _requireAnchor(uint64 number, bytes32 hash) private view {
        bytes32 actual = blockhash(number);
        if (actual != hash || hash == 0) revert WrongAnchor(number, hash, actual);
    }

    function _requireOpen(uint64 id) private view {
        unchecked {
            if ((id & SEQUENCE_MASK) - 1 >= _head & SEQUENCE_MASK) revert UnknownTask(id);
        }
        if (isClosed(id)) revert AlreadyClosed(id);
    }

    function _isStatus(uint256 status) private pure returns (bool) {
        unchecked {
            return status - 1 < uint256(type(Status).max);
        }
    }

    /// @dev Closes a task for which the sender may publish a result now, or says why not and changes nothing. Of a free
    /// task nothing is stored: that it exists only its `Submitted` event tells, so an id without one means nothing to
    /// any reader. Who may answer a domain's tasks is trusted not to answer one that nobody has asked.
    function _close(uint64 id, uint8 status) private returns (SkipReason) {
        if (!_isStatus(status)) return SkipReason.InvalidStatus;
        if (!_coordinators[uint16(id >> 48)][msg.sender]) return SkipReason.NotCoordinator;
        uint256 bits = _closed[id >> 8];
        uint256 bit = 1 << (id & 255);
        if (bits & bit != 0) return SkipReason.AlreadyClosed;
        if (id & KEPT != 0) {
            Kept storage task = _kept[id];
            if (task.requester == address(0)) return SkipReason.UnknownTask;
            uint256 deadline = task.deadline;
            if (deadline != 0 && block.timestamp > deadline) return SkipReason.DeadlinePassed;
            uint256 callbackGas = task.callbackGas;
            // A call passes on at most 63/64 of what is left (EIP-150).
            if (callbackGas != 0 && gasleft() < callbackGas * 64 / 63 + CALLBACK_RESERVE) {
                return SkipReason.NotEnoughGas;
            }
        }
        _closed[id >> 8] = bits | bit;
        return SkipReason.None;
    }

    /// @dev Reverts with the error that says the same as `reason`.
    function _revert(SkipReason reason, uint64 id, uint8 status) private view {
        if (reason == SkipReason.InvalidStatus) revert InvalidStatus(status);
        if (reason == SkipReason.NotCoordinator) revert NotCoordinator(uint16(id >> 48), msg.sender);
        if (reason == SkipReason.AlreadyClosed) revert AlreadyClosed(id);
        if (reason == SkipReason.DeadlinePassed) revert DeadlinePassed(id, _kept[id].deadline);
        if (reason == SkipReason.NotEnoughGas) revert NotEnoughGas(id);
        revert UnknownTask(id);
    }

    /// @dev One record of `publishDigests` whose task is kept.
    function _publishKept(uint64 id, uint8 status, uint16 engine, bytes32 digest) private {
        SkipReason reason = _close(id, status);
        if (reason != SkipReason.None) {
            emit Skipped(id, reason);
            return;
        }
        emit Published(id, msg.sender, status, engine, digest);
        _settle(id, status, digest, msg.data[:0]);
    }

    /// @dev Pays the fee of a kept task just closed and, when all effects are in place, calls its requester.
    /// @param digest the document's SHA-256; with a document it is computed here
    function _settle(uint64 id, uint8 status, bytes32 digest, bytes calldata document) private {
        Kept memory task = _kept[id];
        delete _kept[id];
        _pay(id, status == uint8(Status.Rejected) ? task.requester : msg.sender, task.fee);
        if (task.callbackGas == 0) return;
        if (document.length != 0) digest = sha256(document);
        bytes memory data = abi.encodeCall(ITaskRequester.onTaskResult, (id, status, digest, document));
        address requester = task.requester;
        uint256 callbackGas = task.callbackGas;
        bool success;
        // What the requester returns is not copied: it could be as long as it likes.
        assembly ("memory-safe") {
            success := call(callbackGas, requester, 0, add(data, 32), mload(data), 0, 0)
        }
        emit CallbackCalled(id, requester, success);
    }

    function _pay(uint64 id, address to, uint256 fee) private {
        if (fee == 0) return;
        _credit[to] += fee;
        emit Credited(id, to, fee);
    }

    // ------------------------------------------------------------------ names

    function _requireName(string calldata name) private pure {
        uint256 length = bytes(name).length;
        if (length == 0 || length > MAX_NAME) revert NameLength(length);
    }
}
