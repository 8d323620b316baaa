-- Tasks that agents work off, and what each call of a model used.
CREATE TABLE task (
    id bigint PRIMARY KEY,
    workspace_id int NOT NULL,
    agent_id int NOT NULL,
    created_at timestamptz NOT NULL
);

-- Only inserted. Prices are those of the moment of the call, in dollars per million tokens.
CREATE TABLE task_usage (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    task_id bigint NOT NULL REFERENCES task,
    workspace_id int NOT NULL,
    agent_id int NOT NULL,
    provider text NOT NULL,
    model text NOT NULL,
    tokens jsonb NOT NULL,
    input_price numeric(10, 4),
    output_price numeric(10, 4),
    duration_ms int NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX ON task_usage (created_at);
