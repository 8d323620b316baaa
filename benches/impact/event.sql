\set id random(1, :rows)
SELECT * FROM events WHERE id = :id;
