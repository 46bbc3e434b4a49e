// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {ITaskBoard, ITaskRequester} from "./ITaskBoard.sol";

/// @title TaskBoard
/// @notice Implements `ITaskBoard`; the formats are described there.
/// @dev What a free task costs is the design. Submitting one touches one slot (`_head`); publishing one touches three
/// (the sender's right, the head and the guard word of its id). Everything else is in events.
contract TaskBoard is ITaskBoard {
    // ------------------------------------------------------------------ constants

    /// @inheritdoc ITaskBoard
    uint40 public constant override CANCEL_NOTICE = 1 hours;
    /// @inheritdoc ITaskBoard
    uint40 public constant override ABANDON_NOTICE = 30 days;
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

    /// @dev The system contract of EIP-2935 and the gas it is given; it needs less than half of it.
    address private constant HISTORY = 0x0000F90827F1C53a10cb7A02335B175320002935;
    uint256 private constant HISTORY_GAS = 10_000;

    uint256 private constant VERSION = 1;
    uint256 private constant KEPT = 1 << 47;
    uint256 private constant SEQUENCE_MASK = 0x7fffffffffff;
    uint256 private constant ENFORCE_DEADLINE = 1;
    uint256 private constant RECORD = 49;
    uint256 private constant NO_WORD = type(uint256).max;

    // Layout of an answer, see `ITaskBoard`.
    uint256 private constant ANSWER_ID = 88;
    uint256 private constant ANSWER_TAG = 24;
    uint256 private constant AGAIN = 1 << 7;
    /// @dev Tag, engine and status.
    uint256 private constant ANSWER_LOGGED = (1 << 88) - 1 - (1 << 7);

    // Layout of a kept task. A task without a deadline, a callback and a fee of 2^64 wei or more is one word.
    // | first   |  0..159 | requester                                                      |
    // |         | 160..223 | the low 64 bits of the fee                                    |
    // |         | 224..254 | number of the submission's block, modulo 2^31                 |
    // |         | 255     | there is a second word                                         |
    // | second  |  0..39  | deadline                                                       |
    // |         | 40..71  | callback gas                                                   |
    // |         | 72..103 | the high 32 bits of the fee                                    |
    uint256 private constant BLOCK_MASK = 0x7fffffff;
    uint256 private constant HAS_SECOND = 1 << 255;
    uint256 private constant DEADLINE_MASK = 0xffffffffff;

    // Layout of `_head`.
    // |  0..46  | sequence of the newest task                                    |
    // |  47     | paused                                                         |
    // | 48..63  | number of domains                                              |
    // | 64..79  | number of engines                                              |
    uint256 private constant HEAD_PAUSED = 1 << 47;
    uint256 private constant HEAD_DOMAIN = 1 << 48;
    uint256 private constant HEAD_ENGINE = 1 << 64;

    struct Record {
        uint256 first;
        uint256 second;
    }

    // ------------------------------------------------------------------ storage

    /// @dev Slot 0, the only one a free submission reads or writes.
    uint256 private _head;
    /// @dev Bit `id & 255` of word `id >> 8`: something was published under the id, or the task has expired.
    mapping(uint256 word => uint256 bits) private _closed;
    /// @dev Open kept tasks, by `id << 64 | tag`.
    mapping(uint256 key => Record) private _kept;
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
        if (id & KEPT != 0) _keep(id, terms, module, input, entry, msg.value, extra);
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
            if (id & KEPT != 0) {
                _keep(id, request.terms, request.module, request.input, request.entry, request.fee, request.extra);
            }
            emit Submitted(
                id, msg.sender, request.terms, request.module, request.input, request.entry, request.fee, request.extra
            );
        }
        if (msg.value != total) revert WrongValue(msg.value, total);
        _head = head;
    }

    /// @inheritdoc ITaskBoard
    function cancel(uint64 id, uint64 tag) external {
        if (!_exists(id, _head)) revert UnknownTask(id);
        uint40 effectiveAt = uint40(block.timestamp);
        if (id & KEPT != 0) {
            Record storage task = _openRecord(id, tag);
            uint256 first = task.first;
            uint256 second = first & HAS_SECOND == 0 ? 0 : task.second;
            uint256 deadline = second & DEADLINE_MASK;
            bool requested = address(uint160(first)) == msg.sender;
            if (!requested && deadline != 0) revert NotRequester(id);
            effectiveAt += requested ? CANCEL_NOTICE : ABANDON_NOTICE;
            if (deadline != 0 && deadline < effectiveAt) {
                effectiveAt = uint40(deadline);
            } else {
                if (first & HAS_SECOND == 0) task.first = first | HAS_SECOND;
                task.second = (second & ~DEADLINE_MASK) | effectiveAt;
            }
        }
        emit Cancelled(id, msg.sender, tag, effectiveAt);
    }

    /// @inheritdoc ITaskBoard
    function expire(uint64 id, uint64 tag) external {
        if (id & KEPT == 0) revert NotKept(id);
        if (!_exists(id, _head)) revert UnknownTask(id);
        Kept memory task = _read(_openRecord(id, tag));
        if (task.deadline == 0 || block.timestamp <= task.deadline) revert DeadlineNotPassed(id, task.deadline);
        _closed[id >> 8] |= 1 << (id & 255);
        _remove(_kept[_key(id, tag)]);
        emit Expired(id, tag);
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
    function publish(uint256 answer, bytes32 digest, uint256 anchorNumber, bytes32 anchorHash) external {
        _requireAnchor(anchorNumber, anchorHash);
        SkipReason reason = _close(answer, anchorNumber);
        if (reason != SkipReason.None) _revert(reason, answer, anchorNumber);
        uint64 id = uint64(answer >> ANSWER_ID);
        emit Published(id, msg.sender, _logged(answer, anchorNumber), digest);
        if (id & KEPT != 0) _settle(answer, digest, msg.data[:0], false);
    }

    /// @inheritdoc ITaskBoard
    function publishDocument(uint256 answer, bytes calldata document, uint256 anchorNumber, bytes32 anchorHash)
        external
    {
        _requireAnchor(anchorNumber, anchorHash);
        if (document.length > MAX_DOCUMENT) revert DocumentTooLarge(document.length);
        SkipReason reason = _close(answer, anchorNumber);
        if (reason != SkipReason.None) _revert(reason, answer, anchorNumber);
        uint64 id = uint64(answer >> ANSWER_ID);
        emit PublishedDocument(id, msg.sender, _logged(answer, anchorNumber), document);
        if (id & KEPT != 0) _settle(answer, 0, document, true);
    }

    /// @inheritdoc ITaskBoard
    function publishBatch(Result[] calldata results, uint256 anchorNumber, bytes32 anchorHash) external {
        _requireAnchor(anchorNumber, anchorHash);
        if (results.length == 0) revert MalformedBatch(0);
        for (uint256 i; i < results.length; ++i) {
            Result calldata result = results[i];
            uint256 answer = result.answer;
            uint64 id = uint64(answer >> ANSWER_ID);
            bytes calldata document = result.document;
            SkipReason reason =
                document.length > MAX_DOCUMENT ? SkipReason.DocumentTooLarge : _close(answer, anchorNumber);
            if (reason != SkipReason.None) {
                emit Skipped(id, reason);
                continue;
            }
            emit PublishedDocument(id, msg.sender, _logged(answer, anchorNumber), document);
            if (id & KEPT != 0) _settle(answer, 0, document, true);
        }
    }

    /// @inheritdoc ITaskBoard
    /// @dev The closed bits of neighbouring ids are gathered in `bits` and written once. They are written before
    /// anything outside is called, and read anew afterwards: a callback may publish too. `word` is only ever one of
    /// free tasks of a domain that the sender answers for.
    function publishDigests(bytes calldata packed, uint256 anchorNumber, bytes32 anchorHash) external {
        _requireAnchor(anchorNumber, anchorHash);
        if (packed.length < 2 + RECORD || (packed.length - 2) % RECORD != 0) revert MalformedBatch(packed.length);
        uint256 word = NO_WORD; // no id has it: ids end at 64 bits
        uint256 bits;
        uint256 count = _head & SEQUENCE_MASK; // a callback may submit more, but not what this batch knows of
        uint256 cursor;
        uint256 end;
        uint256 common; // anchor and engine of the logged answers
        uint256 log; // 64 bytes of memory with the data of the `Published` event
        assembly ("memory-safe") {
            cursor := add(packed.offset, 2)
            end := add(packed.offset, packed.length)
            common := or(shl(ANSWER_ID, anchorNumber), shl(8, shr(240, calldataload(packed.offset))))
            log := mload(0x40)
            mstore(0x40, add(log, 64))
        }
        for (; cursor < end;) {
            uint256 id;
            uint256 tag;
            uint256 status;
            bytes32 digest;
            bool usual;
            assembly ("memory-safe") {
                let first := calldataload(cursor)
                id := shr(192, first)
                tag := and(shr(128, first), 0xffffffffffffffff)
                status := byte(16, first)
                digest := calldataload(add(cursor, 17))
                cursor := add(cursor, RECORD)
                // In the word at hand, a task that exists and is open, with a status that exists.
                usual := and(
                    and(eq(shr(8, id), word), lt(sub(and(id, SEQUENCE_MASK), 1), count)),
                    and(lt(sub(status, 1), 4), iszero(and(shr(and(id, 255), bits), 1)))
                )
            }
            if (!usual) {
                if (id & KEPT != 0) {
                    if (word != NO_WORD) _closed[word] = bits;
                    word = NO_WORD;
                    uint256 engine = uint16(common >> 8);
                    _publishKept(id << ANSWER_ID | tag << ANSWER_TAG | engine << 8 | status, digest, anchorNumber);
                    continue;
                }
                SkipReason reason;
                bool again = status & AGAIN != 0;
                status &= ~AGAIN;
                if (!_isStatus(status)) {
                    reason = SkipReason.InvalidAnswer;
                } else if (id >> 8 != word && !_coordinators[uint16(id >> 48)][msg.sender]) {
                    reason = SkipReason.NotCoordinator;
                } else if (!_exists(id, count)) {
                    reason = SkipReason.UnknownTask;
                } else {
                    if (id >> 8 != word) {
                        if (word != NO_WORD) _closed[word] = bits;
                        word = id >> 8;
                        bits = _closed[word];
                    }
                    if ((bits >> (id & 255)) & 1 != 0 && !again) reason = SkipReason.AlreadyClosed;
                }
                if (reason != SkipReason.None) {
                    emit Skipped(uint64(id), reason);
                    continue;
                }
            }
            bits |= 1 << (id & 255);
            bytes32 topic = Published.selector;
            assembly ("memory-safe") {
                mstore(log, or(or(common, shl(ANSWER_TAG, tag)), status))
                mstore(add(log, 32), digest)
                log3(log, 64, topic, id, caller())
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
    function kept(uint64 id, uint64 tag) external view returns (Kept memory task) {
        Record storage record = _kept[_key(id, tag)];
        if (record.first != 0) task = _read(record);
    }

    /// @inheritdoc ITaskBoard
    function credit(address account) external view returns (uint256) {
        return _credit[account];
    }

    // ------------------------------------------------------------------ submission

    /// @dev Checks the terms and names the task.
    /// @param head the head with the task's own sequence
    function _accept(uint256 head, uint256 terms, uint256 fee, uint256 extraLength) private view returns (uint64 id) {
        if (terms >> 248 != VERSION) revert UnsupportedVersion(uint8(terms >> 248));
        if (uint8(terms >> 240) == 0) revert InvalidKind(0);
        uint256 domain = uint16(terms >> 224);
        if (domain >= uint16(head / HEAD_DOMAIN)) revert UnknownDomain(uint16(domain));
        uint256 flags = uint8(terms);
        uint256 callbackGas = uint32(terms >> 8);
        if (flags > ENFORCE_DEADLINE || callbackGas > MAX_CALLBACK_GAS) revert InvalidTerms(terms);
        if (extraLength > MAX_EXTRA) revert ExtraTooLong(extraLength);
        id = uint64(domain << 48 | head & SEQUENCE_MASK);
        if (fee | flags != 0) {
            uint40 deadline = uint40(terms >> 40);
            if ((deadline != 0 || flags != 0) && deadline <= block.timestamp) revert InvalidDeadline(deadline);
        }
        if (fee | callbackGas | flags != 0) id |= uint64(KEPT);
    }

    /// @dev Stores a kept task under its id and the tag of what is about to be logged for it.
    function _keep(
        uint64 id,
        uint256 terms,
        bytes32 module,
        bytes32 input,
        bytes32 entry,
        uint256 fee,
        bytes calldata extra
    ) private {
        bytes32 payloadHash = keccak256(
            bytes.concat(abi.encode(id, msg.sender), abi.encode(terms, module, input, entry, fee, extra))
        );
        Record storage task = _kept[_key(id, uint64(bytes8(payloadHash)))];
        uint256 deadline = fee | uint8(terms) != 0 ? uint40(terms >> 40) : 0;
        uint256 second = deadline | uint256(uint32(terms >> 8)) << 40 | (fee >> 64) << 72;
        uint256 first = uint160(msg.sender) | uint256(uint64(fee)) << 160 | (block.number & BLOCK_MASK) << 224;
        if (second != 0) {
            first |= HAS_SECOND;
            task.second = second;
        }
        task.first = first;
    }

    // ------------------------------------------------------------------ kept tasks

    function _key(uint256 id, uint256 tag) private pure returns (uint256) {
        return id << 64 | tag;
    }

    /// @dev The record of a kept task that is open.
    function _openRecord(uint64 id, uint64 tag) private view returns (Record storage task) {
        task = _kept[_key(id, tag)];
        if (task.first == 0) {
            if (isClosed(id)) revert AlreadyClosed(id);
            revert UnknownTask(id);
        }
    }

    function _read(Record storage record) private view returns (Kept memory task) {
        uint256 first = record.first;
        task.requester = address(uint160(first));
        task.fee = uint64(first >> 160);
        unchecked {
            task.submittedIn = uint64(block.number - _age(first));
        }
        if (first & HAS_SECOND != 0) {
            uint256 second = record.second;
            task.deadline = uint40(second);
            task.callbackGas = uint32(second >> 40);
            task.fee |= uint96(uint32(second >> 72)) << 64;
        }
    }

    /// @dev How many blocks ago a kept task was submitted.
    function _age(uint256 first) private view returns (uint256) {
        unchecked {
            return (block.number - (first >> 224)) & BLOCK_MASK;
        }
    }

    function _remove(Record storage record) private {
        if (record.first & HAS_SECOND != 0) record.second = 0;
        record.first = 0;
    }

    // ------------------------------------------------------------------ publication

    /// @dev The anchor's hash on this chain must be the one the publisher computed on; a block too old has none.
    function _requireAnchor(uint256 number, bytes32 hash) private view {
        bytes32 actual = blockhash(number);
        if (actual == 0) actual = _history(number);
        if (actual != hash || hash == 0) revert WrongAnchor(number, hash, actual);
    }

    /// @dev The hash of a block that the EVM itself does not know any more, on a chain that keeps 8191 of them; else 0.
    /// Nobody can deploy other code at that address, and only the system writes what it answers.
    function _history(uint256 height) private view returns (bytes32 hash) {
        assembly ("memory-safe") {
            mstore(0, height)
            let success := staticcall(HISTORY_GAS, HISTORY, 0, 32, 0, 32)
            if and(success, eq(returndatasize(), 32)) { hash := mload(0) }
        }
    }

    /// @dev Whether the sequence has been given to a task.
    function _exists(uint256 id, uint256 head) private pure returns (bool) {
        unchecked {
            return (id & SEQUENCE_MASK) - 1 < head & SEQUENCE_MASK;
        }
    }

    function _isStatus(uint256 status) private pure returns (bool) {
        unchecked {
            return status - 1 < uint256(type(Status).max);
        }
    }

    /// @dev The answer as events have it.
    function _logged(uint256 answer, uint256 anchorNumber) private pure returns (uint256) {
        return (answer & ANSWER_LOGGED) | anchorNumber << ANSWER_ID;
    }

    /// @dev Closes a task for which the sender may publish a result now, or says why not and changes nothing.
    function _close(uint256 answer, uint256 anchorNumber) private returns (SkipReason) {
        uint256 id = answer >> ANSWER_ID;
        uint256 status = uint8(answer);
        bool again;
        if (!_isStatus(status)) {
            again = status & AGAIN != 0 && id & KEPT == 0;
            if (!again || !_isStatus(status ^ AGAIN)) return SkipReason.InvalidAnswer;
        }
        if (id >> 64 != 0) return SkipReason.InvalidAnswer;
        if (!_coordinators[uint16(id >> 48)][msg.sender]) return SkipReason.NotCoordinator;
        if (id & KEPT != 0) return _closeKept(answer, anchorNumber);
        if (!_exists(id, _head)) return SkipReason.UnknownTask;
        uint256 bits = _closed[id >> 8];
        uint256 bit = 1 << (id & 255);
        if (bits & bit == 0) _closed[id >> 8] = bits | bit;
        else if (!again) return SkipReason.AlreadyClosed;
        return SkipReason.None;
    }

    function _closeKept(uint256 answer, uint256 anchorNumber) private returns (SkipReason) {
        uint256 id = answer >> ANSWER_ID;
        uint256 bits = _closed[id >> 8];
        uint256 bit = 1 << (id & 255);
        if (bits & bit != 0) return SkipReason.AlreadyClosed;
        Record storage task = _kept[answer >> ANSWER_TAG];
        uint256 first = task.first;
        if (first == 0) return SkipReason.UnknownTask;
        if (block.number - anchorNumber > _age(first)) return SkipReason.AnchorBeforeTask;
        if (first & HAS_SECOND != 0) {
            uint256 second = task.second;
            uint256 deadline = second & DEADLINE_MASK;
            if (deadline != 0 && block.timestamp > deadline) return SkipReason.DeadlinePassed;
            uint256 callbackGas = uint32(second >> 40);
            // A call passes on at most 63/64 of what is left (EIP-150).
            if (
                callbackGas != 0 && uint8(answer) != uint8(Status.Rejected)
                    && gasleft() < callbackGas * 64 / 63 + CALLBACK_RESERVE
            ) {
                return SkipReason.NotEnoughGas;
            }
        }
        _closed[id >> 8] = bits | bit;
        return SkipReason.None;
    }

    /// @dev Reverts with the error that says the same as `reason`.
    function _revert(SkipReason reason, uint256 answer, uint256 anchorNumber) private view {
        uint64 id = uint64(answer >> ANSWER_ID);
        if (reason == SkipReason.InvalidAnswer) revert InvalidAnswer(answer);
        if (reason == SkipReason.NotCoordinator) revert NotCoordinator(uint16(id >> 48), msg.sender);
        if (reason == SkipReason.AlreadyClosed) revert AlreadyClosed(id);
        if (reason == SkipReason.UnknownTask) revert UnknownTask(id);
        if (reason == SkipReason.NotEnoughGas) revert NotEnoughGas(id);
        Kept memory task = _read(_kept[answer >> ANSWER_TAG]);
        if (reason == SkipReason.DeadlinePassed) revert DeadlinePassed(id, task.deadline);
        revert AnchorBeforeTask(id, anchorNumber, task.submittedIn);
    }

    /// @dev One record of `publishDigests` whose task is kept.
    function _publishKept(uint256 answer, bytes32 digest, uint256 anchorNumber) private {
        uint64 id = uint64(answer >> ANSWER_ID);
        SkipReason reason = _close(answer, anchorNumber);
        if (reason != SkipReason.None) {
            emit Skipped(id, reason);
            return;
        }
        emit Published(id, msg.sender, _logged(answer, anchorNumber), digest);
        _settle(answer, digest, msg.data[:0], false);
    }

    /// @dev Pays the fee of a kept task just closed and, when all effects are in place, calls its requester. Nobody is
    /// called for a rejection: nothing ran, and the coordinator earns nothing that could pay for the call.
    /// @param digest the document's SHA-256; of a document that is at hand it is computed here, when it is needed
    function _settle(uint256 answer, bytes32 digest, bytes calldata document, bool hasDocument) private {
        uint64 id = uint64(answer >> ANSWER_ID);
        uint8 status = uint8(answer);
        Record storage record = _kept[answer >> ANSWER_TAG];
        Kept memory task = _read(record);
        _remove(record);
        if (status == uint8(Status.Rejected)) {
            _pay(id, task.requester, task.fee);
            return;
        }
        _pay(id, msg.sender, task.fee);
        if (task.callbackGas == 0) return;
        if (hasDocument) digest = sha256(document);
        bytes memory data =
            abi.encodeCall(ITaskRequester.onTaskResult, (id, uint64(answer >> ANSWER_TAG), status, digest, document));
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
