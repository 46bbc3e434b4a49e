-- Wishes to have the publisher's credit paid out: each goes through the outbox, with the publisher's own nonces. The
-- columns from the state on are those of a publication and mean the same.
create table withdrawals (
    id integer primary key autoincrement,
    chain_id integer not null,
    contract text not null,
    sender text not null,
    recipient text not null,
    amount_wei text,
    requested_at_ms integer not null,
    state text not null default 'queued',
    nonce integer,
    tries integer not null default 0,
    code text,
    message text,
    place_transaction text,
    place_number integer,
    place_hash text
);
create index withdrawals_nonce on withdrawals (chain_id, sender, nonce);
create index withdrawals_state on withdrawals (state, id);

-- The credit that an account has on a contract, as it was read last.
create table earnings (
    chain_id integer not null,
    contract text not null,
    account text not null,
    credit_wei text not null,
    block_number integer not null,
    read_at_ms integer not null,
    primary key (chain_id, contract, account)
);
