-- Whose turn it is. A flow is a requester, or `$` and a requester for tasks with a fee; its weight comes from the fee.
-- A task is counted at the time of its block, not at the time it was read. Its run time is a sum in milliseconds. Since
-- when its content is proved to be missing is 0 while that was never proved, and after every fault of ours.
alter table tasks add column submitted_at_ms integer not null default 0;
alter table tasks add column flow text not null default '';
alter table tasks add column weight integer not null default 0;
alter table tasks add column ran_ms integer not null default 0;
alter table tasks add column missing_since_ms integer not null default 0;
update tasks set submitted_at_ms = seen_at_ms, flow = requester;

drop index tasks_next;
drop index tasks_requester;
create index tasks_flow on tasks (state, flow, due_at_ms, local_id) where rests = 0;
create index tasks_submitted on tasks (requester, weight, submitted_at_ms);
create index tasks_id on tasks (task_id, local_id);
create index tasks_settled on tasks (seen_at_ms, local_id) where rests = 1 and state in ('final', 'cancelled');
create index publications_queued on publications (chain_id, contract, queued_at_ms, task) where state = 'queued';

-- What publishing rejections has cost, by day (days since 1970), in wei.
create table rejection_spend (
    day integer primary key,
    wei text not null
);

-- The end of what the guest wrote, escaped line by line, as the executor gave it.
alter table results add column log text;
