\set entity random(1, 1000)
\set user random(1, 100000)
INSERT INTO events (created_at, entity_id, kind, user_id) VALUES (now(), :entity, 'view', :user);
