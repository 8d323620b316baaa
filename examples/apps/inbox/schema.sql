CREATE TABLE accounts (
    id int PRIMARY KEY,
    name text NOT NULL,
    reporting_timezone text NOT NULL
);

CREATE TABLE inboxes (
    id int PRIMARY KEY,
    account_id int NOT NULL REFERENCES accounts,
    name text NOT NULL
);

CREATE TABLE conversations (
    id bigint PRIMARY KEY,
    account_id int NOT NULL REFERENCES accounts,
    inbox_id int NOT NULL,
    assignee_id int,
    status int NOT NULL DEFAULT 0, -- 0 open, 1 resolved, 2 pending, 3 snoozed
    created_at timestamptz NOT NULL
);
CREATE INDEX ON conversations (created_at);

-- Durations in seconds: first_response, reply_time, conversation_resolved.
CREATE TABLE reporting_events (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    value double precision NOT NULL,
    account_id int NOT NULL REFERENCES accounts,
    inbox_id int NOT NULL,
    user_id int,
    conversation_id bigint NOT NULL,
    created_at timestamptz NOT NULL
);
CREATE INDEX ON reporting_events (created_at);
