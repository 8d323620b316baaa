-- Sixteen days around a change of clocks in Europe, in the zones of four accounts.
INSERT INTO accounts VALUES (1, 'Spree', 'Europe/Berlin'), (2, 'Bagmati', 'Asia/Kathmandu'),
    (3, 'Harbour', 'America/St_Johns'), (4, 'Hudson', 'America/New_York');
INSERT INTO inboxes SELECT n, 1 + n % 4, 'inbox ' || n FROM generate_series(1, 8) n;

INSERT INTO conversations
SELECT n, inboxes.account_id, inboxes.id, nullif(h % 5, 0), h % 3,
    '2025-03-22Z'::timestamptz + n * interval '5 minutes 37 seconds'
FROM generate_series(1, 4000) n, LATERAL (SELECT abs(hashint8(n)) AS h) hash
    JOIN inboxes ON inboxes.id = 1 + h % 8;

INSERT INTO reporting_events (name, value, account_id, inbox_id, user_id, conversation_id, created_at)
SELECT name, 5 + h % 7200 + (h % 100) / 64.0, account_id, inbox_id, assignee_id, id,
    created_at + h % 7200 * interval '1 second'
FROM conversations, unnest(ARRAY['first_response', 'conversation_resolved']) name,
    LATERAL (SELECT abs(hashtext(name || id)) AS h) hash
WHERE h % 9 > 0;

ANALYZE accounts, inboxes, conversations, reporting_events;
