CREATE TABLE categories (
    id int PRIMARY KEY,
    name text NOT NULL
);

CREATE TABLE topics (
    id int PRIMARY KEY,
    category_id int NOT NULL REFERENCES categories,
    title text NOT NULL
);

CREATE TABLE posts (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic_id int NOT NULL REFERENCES topics,
    user_id int,
    post_type int NOT NULL DEFAULT 1, -- 1 regular, 2 of a moderator, 3 small action
    word_count int,
    created_at timestamptz NOT NULL,
    deleted_at timestamptz
);
CREATE INDEX ON posts (created_at);
CREATE INDEX ON posts (topic_id);

-- Whoever looks at a topic, or posts in it, was active then.
CREATE TABLE visits (
    user_id int NOT NULL,
    topic_id int NOT NULL REFERENCES topics,
    visited_at timestamptz NOT NULL
);
CREATE INDEX ON visits (visited_at);
