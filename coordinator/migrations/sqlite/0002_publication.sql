-- Where the transaction of a publication stands: with it, every state of the publication machine has its data in the row.
alter table publications add column place_transaction text;
alter table publications add column place_number integer;
alter table publications add column place_hash text;
-- Whether the id is closed by what does not belong to the task, so that its result is published all the same.
alter table publications add column again integer not null default 0;
create index publications_included on publications (chain_id, contract, included_hash);

update publications set
    place_transaction = (select o.mined_transaction from outbox o where o.chain_id = publications.chain_id
        and o.sender = publications.sender and o.nonce = publications.nonce),
    place_number = (select o.mined_number from outbox o where o.chain_id = publications.chain_id
        and o.sender = publications.sender and o.nonce = publications.nonce),
    place_hash = (select o.mined_hash from outbox o where o.chain_id = publications.chain_id
        and o.sender = publications.sender and o.nonce = publications.nonce)
    where state in ('mined', 'refused', 'settled');
update publications set state = 'final' where state = 'settled' and place_hash is not null
    and exists (select 1 from tasks t where t.local_id = publications.task and t.state = 'final');
update publications set state = 'given_up', code = coalesce(code, 'refused'), message = coalesce(message, '')
    where state = 'settled';
update publications set state = 'sent' where state in ('mined', 'refused') and place_hash is null;

-- The sequence that the next task has after a block of the ring; 0 where it is not known.
alter table blocks add column next_sequence integer not null default 0;

-- The lowest nonce of an account that may be free, by what was forgotten: what was used once is never taken again.
create table accounts (
    chain_id integer not null,
    sender text not null,
    floor integer not null,
    primary key (chain_id, sender)
);
insert into accounts (chain_id, sender, floor)
    select chain_id, sender, max(nonce) + 1 from outbox where state in ('final', 'taken') group by chain_id, sender;

-- The chain took back what the confirmations called final. While a row stands here nothing is published. The block is
-- the one that was read last and is gone; without an ancestor the fork is below everything that is remembered.
create table violations (
    chain_id integer not null,
    contract text not null,
    number integer not null,
    hash text not null,
    ancestor integer,
    accepted integer not null default 0,
    raised_at_ms integer not null,
    primary key (chain_id, contract)
);

-- Tasks whose submission was final and is gone: a violation is over when each of them stands again.
create table lost_tasks (
    task integer primary key references tasks (local_id)
);
