\set id random(1, 200000)
SELECT * FROM items WHERE id = :id;
