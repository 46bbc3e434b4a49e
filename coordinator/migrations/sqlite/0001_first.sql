-- Everything a coordinator must not lose. Instants are Unix milliseconds, hashes and addresses 0x-hex text,
-- wei and 64-bit unsigned numbers decimal text or, where noted, their two's complement.

create table instance (
    one integer primary key check (one = 1),
    id text not null,
    created_at_ms integer not null
);

-- Where the watcher stands. The cursor is the last block whose events are in the log, by number and hash; the next
-- sequence is 0 while none is known, and the sequence block is where the one before it was seen.
create table chains (
    chain_id integer not null,
    contract text not null,
    genesis text not null,
    cursor_number integer not null,
    cursor_hash text not null,
    next_sequence integer not null,
    sequence_block integer not null,
    primary key (chain_id, contract)
);

-- The ring of recent blocks: what a reorganisation is noticed by.
create table blocks (
    chain_id integer not null,
    contract text not null,
    number integer not null,
    hash text not null,
    parent text not null,
    primary key (chain_id, contract, number)
);

-- What stands in the blocks above the ring's lowest: what a reorganisation takes back.
create table sightings (
    chain_id integer not null,
    contract text not null,
    number integer not null,
    hash text not null,
    task integer not null references tasks (local_id),
    kind text not null,
    transaction_hash text not null,
    ours integer not null,
    primary key (chain_id, contract, hash, task, kind)
);
create index sightings_number on sightings (chain_id, contract, number);
create index sightings_task on sightings (task, kind);

create table tasks (
    local_id integer primary key autoincrement,
    chain_id integer not null,
    contract text not null,
    task_id text not null,
    payload text not null,
    requester text not null,
    submission text not null,
    included_number integer,
    included_hash text,
    state text not null,
    detail text not null,
    attempts integer not null default 0,
    failures integer not null default 0,
    due_at_ms integer not null default 0,
    dirty integer not null default 0,
    rests integer not null default 0,
    seen_at_ms integer not null,
    version integer not null default 1,
    unique (chain_id, contract, task_id, payload)
);
create index tasks_due on tasks (rests, due_at_ms);
create index tasks_next on tasks (rests, state, local_id, due_at_ms);
create index tasks_state on tasks (state, local_id);
create index tasks_requester on tasks (requester, seen_at_ms);
create index tasks_included on tasks (included_hash);

create table events (
    seq integer primary key autoincrement,
    task integer not null references tasks (local_id),
    name text not null,
    body text not null,
    at_ms integer not null,
    applied integer not null default 0
);
create index events_task on events (task, seq);
create index events_pending on events (applied, seq) where applied = 0;

create table results (
    task integer primary key references tasks (local_id),
    document text not null,
    digest text not null,
    record text,
    at_ms integer not null
);

-- What is to be published: one row a task, written in the transaction that makes the task `publishing`.
create table publications (
    task integer primary key references tasks (local_id),
    chain_id integer not null,
    contract text not null,
    task_id text not null,
    status integer not null,
    digest text not null,
    document text,
    callback_gas integer not null,
    included_number integer not null,
    included_hash text not null,
    state text not null,
    sender text,
    nonce integer,
    tries integer not null default 0,
    code text,
    message text,
    queued_at_ms integer not null
);
create index publications_state on publications (state, queued_at_ms);
create index publications_nonce on publications (chain_id, sender, nonce);
create index publications_id on publications (chain_id, contract, task_id);

-- One row for each nonce this coordinator has taken, and one for each transaction it ever signed for it.
-- The call and its anchor are those of the newest attempt.
create table outbox (
    chain_id integer not null,
    sender text not null,
    nonce integer not null,
    contract text not null,
    state text not null,
    call text not null,
    gas_limit integer not null,
    anchor_number integer not null,
    anchor_hash text not null,
    mined_transaction text,
    mined_number integer,
    mined_hash text,
    created_at_ms integer not null,
    primary key (chain_id, sender, nonce)
);
create index outbox_state on outbox (state, nonce);

create table attempts (
    chain_id integer not null,
    sender text not null,
    nonce integer not null,
    hash text not null,
    raw text not null,
    max_fee_wei text not null,
    priority_fee_wei text not null,
    signed_at_ms integer not null,
    primary key (chain_id, sender, nonce, hash),
    foreign key (chain_id, sender, nonce) references outbox (chain_id, sender, nonce)
);
create index attempts_hash on attempts (hash);
