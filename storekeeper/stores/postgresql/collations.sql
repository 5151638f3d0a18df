-- Collations of this database whose order of text has another version now than when it was recorded (PostgreSQL 15 and newer).
select 'the database''s own (' || d.datcollversion || ', now ' || coalesce(pg_database_collation_actual_version(d.oid), 'none') || ')'
from pg_database d
where d.datname = current_database() and d.datcollversion is distinct from pg_database_collation_actual_version(d.oid) and d.datcollversion is not null
union all
select c.collname || ' (' || c.collversion || ', now ' || coalesce(pg_collation_actual_version(c.oid), 'none') || ')'
from pg_collation c
where c.collversion is not null and c.collversion is distinct from pg_collation_actual_version(c.oid)
    and exists (select from pg_attribute a where a.attcollation = c.oid)
