\set id random(1, 200000)
UPDATE items SET stock = stock - 1, updated_at = now() WHERE id = :id;
