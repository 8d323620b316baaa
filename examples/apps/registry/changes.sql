-- at 2025-04-19T05:00:00Z: a log file of 27 March is found, and a day of the first quarter was counted twice
UPDATE version_downloads SET downloads = downloads + 100 + version_id WHERE date = '2025-03-27';
INSERT INTO version_downloads VALUES (30, '2025-01-05', 12);
UPDATE version_downloads SET downloads = downloads / 2 WHERE date = '2025-02-14' AND downloads > 1;

-- at 2025-04-19T06:00:00Z: a version is yanked, one belongs to another crate, and one is removed with its downloads
UPDATE versions SET yanked = true WHERE id = 25;
UPDATE versions SET crate_id = 7 WHERE id = 30;
UPDATE version_downloads SET version_id = 28 WHERE version_id = 3 AND date = '2025-01-20';
DELETE FROM version_downloads WHERE version_id = 9;

-- at 2025-04-20T06:00:00Z: rows of more than 90 days ago are exported and purged
-- seal public.version_downloads 2025-01-20
INSERT INTO exported_downloads SELECT * FROM version_downloads WHERE date < '2025-01-20';
DELETE FROM version_downloads WHERE date < '2025-01-20';

-- at 2025-04-21T00:10:00Z: a purge later, corrections go on
UPDATE version_downloads SET downloads = downloads + 1 WHERE date = '2025-01-20' OR date = '2025-04-20';
