// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

/// @title TaskBoard: where work is asked for and answered
/// @notice The only source of the ABI. This file also holds the tables of kinds, statuses and CID forms and the
/// layouts of the packed words; the golden vectors in `contracts/vectors` hold every implementation to them.
///
/// ## Task id (uint64)
/// | bits   | meaning                                                                              |
/// | ------ | ------------------------------------------------------------------------------------ |
/// | 48..63 | domain index                                                                         |
/// | 47     | kept: the task holds a fee, wants a callback or has an enforced deadline             |
/// | 0..46  | sequence: dense over all domains, starts at 1                                        |
///
/// ## Terms (uint256), the packed small fields of a request
/// | bits     | field            | meaning                                                          |
/// | -------- | ---------------- | ---------------------------------------------------------------- |
/// | 248..255 | version          | format version, 1                                                |
/// | 240..247 | kind             | 1 wasm, 2 container, 3 session; others are accepted and rejected  |
/// |          |                  | by coordinators; 0 is not                                        |
/// | 224..239 | domain           | registered domain index                                          |
/// | 216..223 | module form      | see "CID forms"                                                  |
/// | 208..215 | input form       | see "CID forms"                                                  |
/// | 176..207 | timeout          | wall-clock limit in seconds, 0 takes the coordinator's default   |
/// | 144..175 | memory           | memory limit in MiB, 0 takes the coordinator's default           |
/// |  80..143 | fuel             | fuel limit, 0 takes the coordinator's default                    |
/// |  40..79  | deadline         | Unix time in seconds after which the result is worthless, 0 none |
/// |   8..39  | callback gas     | gas of the call to the requester, at most 1,000,000; 0 none      |
/// |   0..7   | flags            | bit 0: the contract enforces the deadline of a task without a fee |
/// |          |                  | too (that of a task with a fee always is); the others are 0      |
///
/// ## CID forms
/// | form | meaning                                                                                             |
/// | ---- | --------------------------------------------------------------------------------------------------- |
/// | 0    | no CID; the digest word is 0                                                                        |
/// | 1    | CIDv0: dag-pb and sha2-256, the digest in the word                                                  |
/// | 2    | CIDv1 with codec raw (0x55) and sha2-256, the digest in the word                                    |
/// | 3    | CIDv1 with codec dag-pb (0x70) and sha2-256, the digest in the word                                 |
/// | 255  | anything else: the CID is in `extra`, the digest word is 0                                          |
///
/// ## Extra (bytes, at most 1024)
/// Empty in the common case; otherwise a sequence of records: one byte tag, two bytes big-endian length, the value.
/// Tags: 1 the module's CID in binary; 2 the input's CID in binary; 3 a path below the module's CID (UTF-8);
/// 4 a path below the input's CID (UTF-8); 5 the entry (UTF-8), with a zero entry word. Each at most once.
///
/// ## Entry (bytes32)
/// The exported function's name in UTF-8, left-aligned and padded with zeros; 0 when the input names it.
///
/// ## Payload hash
/// keccak-256 of the `Submitted` log's topics 1 and 2 followed by its data, as they stand in the log. Together with
/// chain id, contract and id it is the identity of a task: after a reorg the same id with another payload is another task.
///
/// ## Tag (uint64)
/// The first 8 bytes of the payload hash. Whatever is done to a task names its id and its tag, so that it never hits
/// another task that stands under the same id on another branch of the chain. A tag binds against every accident and
/// against everybody but the requester: its payload holds its address, so only it could look for two payloads with one
/// tag (2^32 tries), and it would deceive itself alone.
///
/// ## Answer (uint256), the small fields of a publication
/// | bits     | in calls                          | in events                              |
/// | -------- | --------------------------------- | -------------------------------------- |
/// | 152..255 | 0                                 | 0                                      |
/// |  88..151 | id                                | number of the anchor's block           |
/// |  24..87  | tag                               | tag                                    |
/// |   8..23  | engine; 0 when nothing ran        | engine                                 |
/// |   7      | again: see "Which publication"    | 0                                      |
/// |   0..6   | status, 1..4                      | status                                 |
///
/// ## Which publication is a task's result
/// The first one, by block and log index, after the task's `Submitted` event that has the task's id and tag and an
/// anchor that is not before the submission's block. Readers look for the submission first and pass over every other
/// publication.
///
/// The contract does its part as far as it knows the task. An id whose sequence nobody has been given cannot be
/// closed. Of a kept task it has the tag and the block of the submission: a publication with another tag is one for an
/// unknown task, one with an older anchor is refused, and neither pays or closes anything. Of a free task it stores
/// nothing, so a publication with a wrong tag is logged and closes the id. That takes nothing away: with the bit
/// `again` the right one is published all the same. (Measured and left: bits of an id in different words by tag, 17,000
/// gas more for each publication; a stored tag, 4,000 more for each submission; several bits of an id in one word, which
/// only makes the accident rarer. `again` costs nothing where it is not used.) Who publishes finds the id closed, looks
/// for the task's result, and publishes again only when there is none. A repetition of a result harms no reader, since
/// the first one counts; kept tasks, which pay and call, have no `again`.
///
/// ## Result
/// Either the result document itself (at most 256 bytes; readers hash it with SHA-256) or its SHA-256 digest alone.
/// In the second case the document is the raw block whose CID is CIDv1(raw, sha2-256, digest).
///
/// ## Packed digest-only batch (`publishDigests`)
/// `packed` is a 2-byte engine id followed by one record of 49 bytes for each task: 8 bytes id, 8 bytes tag, 1 byte
/// with `again` and status as in the answer, 32 bytes digest; all big-endian.
///
/// ## Kept tasks
/// A kept task stands under its id and tag until it is closed. The deadline that ends it is, where it has one, the one
/// of its terms (with a fee or flag 0), or what a cancellation made of it: the requester's gives `CANCEL_NOTICE`, and
/// when there is no deadline at all, anybody's gives `ABANDON_NOTICE`. So the fee of a requester that cannot cancel, for
/// example a contract without a function for it, is not lost: anybody gives it a deadline and later calls `expire`. The
/// refund is credit: a requester must be able to call `withdraw`.
interface ITaskBoard {
    // ------------------------------------------------------------------ types

    /// @notice What a task asks for; the values stand in `terms`.
    enum Kind {
        None,
        Wasm,
        Container,
        Session
    }

    /// @notice How a task ended.
    enum Status {
        None,
        Ok,
        Failed,
        TimedOut,
        Rejected
    }

    /// @notice Why an item of a batch was left out; the others of the batch are published.
    enum SkipReason {
        None,
        AlreadyClosed,
        NotCoordinator,
        UnknownTask,
        DeadlinePassed,
        InvalidAnswer,
        DocumentTooLarge,
        NotEnoughGas,
        AnchorBeforeTask
    }

    /// @notice One request of `submitBatch`.
    struct Request {
        uint256 terms;
        bytes32 module;
        bytes32 input;
        bytes32 entry;
        uint96 fee;
        bytes extra;
    }

    /// @notice One result of `publishBatch`.
    struct Result {
        uint256 answer;
        bytes document;
    }

    /// @notice What the contract holds of a kept task; all zero once it is closed, and for a wrong tag.
    struct Kept {
        address requester;
        uint96 fee;
        /// Unix seconds; 0 for none.
        uint40 deadline;
        uint32 callbackGas;
        /// Number of the block that it was submitted in.
        uint64 submittedIn;
    }

    // ------------------------------------------------------------------ events

    /// @notice A task was submitted. Topic 1 is the id, topic 2 the requester.
    event Submitted(
        uint64 indexed id,
        address indexed requester,
        uint256 terms,
        bytes32 module,
        bytes32 input,
        bytes32 entry,
        uint256 fee,
        bytes extra
    );

    /// @notice A result was published as its digest alone. `answer` as in the table above.
    event Published(uint64 indexed id, address indexed coordinator, uint256 answer, bytes32 digest);

    /// @notice A result was published with its document. `answer` as in the table above.
    event PublishedDocument(uint64 indexed id, address indexed coordinator, uint256 answer, bytes document);

    /// @notice An item of a batch was left out; it stays as it was.
    event Skipped(uint64 indexed id, SkipReason reason);

    /// @notice Somebody asked to cancel. Only what the task's requester asks stops the work: coordinators compare `by`
    /// with it, and `tag` with the task's. Of a kept task `effectiveAt` (Unix seconds) is its deadline from now on.
    event Cancelled(uint64 indexed id, address indexed by, uint64 tag, uint40 effectiveAt);

    /// @notice A kept task's deadline passed without a result; its fee went back to the requester's credit.
    event Expired(uint64 indexed id, uint64 tag);

    /// @notice A fee was credited: to the coordinator for ok, failed and timed out, else to the requester.
    event Credited(uint64 indexed id, address indexed to, uint256 amount);

    /// @notice Credit was paid out.
    event Withdrawn(address indexed account, address indexed to, uint256 amount);

    /// @notice The requester's callback was called.
    event CallbackCalled(uint64 indexed id, address indexed requester, bool success);

    event DomainRegistered(uint16 indexed domain, string name);
    event CoordinatorSet(uint16 indexed domain, address indexed coordinator, bool allowed);
    event EngineRegistered(uint16 indexed engine, string name);
    event Paused(bool paused);
    event OwnershipTransferStarted(address indexed from, address indexed to);
    event OwnershipTransferred(address indexed from, address indexed to);

    // ------------------------------------------------------------------ errors

    error NotOwner();
    error NotPendingOwner();
    error NotCoordinator(uint16 domain, address sender);
    error NotRequester(uint64 id);
    error SubmissionsPaused();
    error UnsupportedVersion(uint8 version);
    error UnknownDomain(uint16 domain);
    error InvalidKind(uint8 kind);
    error InvalidTerms(uint256 terms);
    error InvalidDeadline(uint40 deadline);
    error ExtraTooLong(uint256 length);
    error WrongValue(uint256 sent, uint256 needed);
    error InvalidAnswer(uint256 answer);
    error DocumentTooLarge(uint256 length);
    error AlreadyClosed(uint64 id);
    error UnknownTask(uint64 id);
    error DeadlinePassed(uint64 id, uint40 deadline);
    error DeadlineNotPassed(uint64 id, uint40 deadline);
    error NotKept(uint64 id);
    error WrongAnchor(uint256 number, bytes32 expected, bytes32 actual);
    error AnchorBeforeTask(uint64 id, uint256 anchorNumber, uint64 submittedIn);
    error NotEnoughGas(uint64 id);
    error MalformedBatch(uint256 length);
    error NothingToWithdraw(address account);
    error TransferFailed(address to);
    error NameLength(uint256 length);
    error Full();

    // ------------------------------------------------------------------ requesters

    /// @notice Submits one task; the fee is the value sent.
    /// @return id the task's id
    function submit(uint256 terms, bytes32 module, bytes32 input, bytes32 entry, bytes calldata extra)
        external
        payable
        returns (uint64 id);

    /// @notice Submits several tasks; the value sent must be the sum of their fees.
    /// @return first the id of the first; sequences follow each other in the order given
    function submitBatch(Request[] calldata requests) external payable returns (uint64 first);

    /// @notice Asks to cancel. A free task: an event that coordinators honour when it comes from the requester.
    /// A kept task: the requester's moves the deadline to at most `CANCEL_NOTICE` seconds from now, so that a result on
    /// its way is still paid; then `expire` refunds. Anybody else may give a kept task without a deadline one, and it is
    /// `ABANDON_NOTICE` seconds from now.
    function cancel(uint64 id, uint64 tag) external;

    /// @notice Closes a kept task whose deadline has passed and credits its fee to the requester. Anyone may call it.
    function expire(uint64 id, uint64 tag) external;

    /// @notice Pays the sender's whole credit out to `to`.
    function withdraw(address payable to) external returns (uint256 amount);

    // ------------------------------------------------------------------ coordinators

    /// @notice Publishes a result as the SHA-256 of its document.
    /// @param answer id, tag, engine and status; see "Answer"
    /// @param anchorNumber a recent block at or after the task's own, not the current one: at most 256 back, and at most
    /// 8191 on a chain with EIP-2935, whose history is asked only when the EVM does not know the block any more
    /// @param anchorHash that block's hash; with another hash on this chain the call reverts
    function publish(uint256 answer, bytes32 digest, uint256 anchorNumber, bytes32 anchorHash) external;

    /// @notice Publishes a result with its document (at most 256 bytes).
    function publishDocument(uint256 answer, bytes calldata document, uint256 anchorNumber, bytes32 anchorHash) external;

    /// @notice Publishes several results with their documents; a bad item is skipped with an event.
    function publishBatch(Result[] calldata results, uint256 anchorNumber, bytes32 anchorHash) external;

    /// @notice Publishes several results as digests, packed; a bad item is skipped with an event.
    function publishDigests(bytes calldata packed, uint256 anchorNumber, bytes32 anchorHash) external;

    // ------------------------------------------------------------------ owner

    /// @notice Registers the next domain; 0 is registered from the start. Names have 1 to 64 bytes.
    function registerDomain(string calldata name) external returns (uint16 domain);
    /// @notice Gives or takes the right to answer a domain's tasks.
    function setCoordinator(uint16 domain, address coordinator, bool allowed) external;
    /// @notice Names the next engine, from 1. The event says what an id means; publications are not checked against it.
    function registerEngine(string calldata name) external returns (uint16 engine);
    /// @notice Stops or allows submissions; everything else goes on.
    function setPaused(bool paused) external;
    /// @notice Offers ownership to `to`, who becomes owner by `acceptOwnership`.
    function transferOwnership(address to) external;
    function acceptOwnership() external;

    // ------------------------------------------------------------------ views

    /// @notice Seconds that a coordinator still has after the requester cancelled a kept task: longer than a run, a
    /// publication and the finality of the submission together.
    function CANCEL_NOTICE() external view returns (uint40);
    /// @notice Seconds until a kept task without a deadline ends after somebody else than its requester asked for it.
    function ABANDON_NOTICE() external view returns (uint40);
    /// @notice The most gas a callback may ask for: a publication must stay well inside a block.
    function MAX_CALLBACK_GAS() external view returns (uint256);
    function owner() external view returns (address);
    function pendingOwner() external view returns (address);
    function paused() external view returns (bool);
    /// @notice How many tasks were submitted: the sequence of the newest.
    function taskCount() external view returns (uint64);
    function domainCount() external view returns (uint16);
    function engineCount() external view returns (uint16);
    function isCoordinator(uint16 domain, address account) external view returns (bool);
    /// @notice Whether something was published under the id, or the task has expired. For a free task that is not yet
    /// its result: see "Which publication".
    function isClosed(uint64 id) external view returns (bool);
    /// @notice What the contract holds of a kept task; all zero when it is closed or the tag is another.
    function kept(uint64 id, uint64 tag) external view returns (Kept memory);
    function credit(address account) external view returns (uint256);
}

/// @title What a requester that asked for a callback implements
interface ITaskRequester {
    /// @notice Called once with the result, with at most the gas the task asked for. A failure is recorded and changes
    /// nothing. A rejection is not told this way: nothing ran, and nobody pays for the call.
    /// @param tag the task's tag: a requester that a reorg gave another task under the same id can tell them apart
    /// @param digest SHA-256 of the result document
    /// @param document the document, or empty when only its digest was published
    function onTaskResult(uint64 id, uint64 tag, uint8 status, bytes32 digest, bytes calldata document) external;
}
