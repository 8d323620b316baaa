-- at 2025-03-02T14:00:00Z: what the probes of one region lost for an hour arrives late
INSERT INTO monitoring_data (monitor_tag, region, "timestamp", status, latency)
SELECT 'api', 'south', at, CASE WHEN at % 7 = 0 THEN 'DOWN' ELSE 'UP' END, 55.5 + at % 30
FROM generate_series(1740800000, 1740803600, 30) at;

-- at 2025-03-02T15:00:00Z: the outage is declared as maintenance, and false alarms are corrected
UPDATE monitoring_data SET type = 'maintenance'
WHERE monitor_tag = 'api' AND "timestamp" BETWEEN 1740800000 AND 1740801700;
UPDATE monitoring_data SET status = 'UP', latency = 80
WHERE monitor_tag = 'web' AND status = 'DOWN' AND "timestamp" < 1740830000;

-- at 2025-03-03T00:10:00Z: the second day ends, and a monitor is deleted for its first six hours
DELETE FROM monitoring_data WHERE monitor_tag = 'web' AND "timestamp" < 1740787200 + 6 * 3600;
