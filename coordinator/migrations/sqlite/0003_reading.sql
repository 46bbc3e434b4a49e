-- The sequence block of a chain is from now on the block up to which the sequence of tasks is proved to be whole. The
-- block in which the newest one was seen may hold more of them: the one before it is proved.
update chains set sequence_block = max(sequence_block - 1, 0);

-- The block up to which everything was read a second time, later.
alter table chains add column second_number integer not null default 0;
update chains set second_number = cursor_number;

-- The block that a contract was deployed in, found once.
create table deployments (
    chain_id integer not null,
    contract text not null,
    genesis text not null,
    number integer not null,
    primary key (chain_id, contract)
);

-- Which id an engine's name has, found once, and how many engines there were then.
create table engines (
    chain_id integer not null,
    contract text not null,
    genesis text not null,
    name text not null,
    engine integer not null,
    count integer not null,
    primary key (chain_id, contract, name)
);
