CREATE TABLE workflow (
    id text PRIMARY KEY,
    name text NOT NULL,
    project_id int NOT NULL
);

-- A row is written when a run starts, and changed when it ends.
CREATE TABLE execution (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    workflow_id text NOT NULL REFERENCES workflow,
    mode text NOT NULL,
    status text NOT NULL,
    started_at timestamptz NOT NULL,
    stopped_at timestamptz,
    deleted_at timestamptz
);
CREATE INDEX ON execution (started_at);
