-- The columns of the given relations, by name: a restore may number inherited columns differently.
-- send_schema and send_function are set for the types of pgvector, which are read faster in their binary form.
select
    a.attrelid,
    a.attname,
    case when x.is_vector then sn.nspname end as send_schema,
    case when x.is_vector then s.proname end as send_function
from pg_attribute a
join pg_type t on t.oid = a.atttypid
join pg_proc s on s.oid = t.typsend
join pg_namespace sn on sn.oid = s.pronamespace
cross join lateral (
    select exists (
        select
        from pg_depend d
        join pg_extension e on e.oid = d.refobjid
        where d.classid = 'pg_type'::regclass and d.objid = t.oid and d.deptype = 'e' and d.refclassid = 'pg_extension'::regclass
            and e.extname = 'vector' and t.typname in ('vector', 'halfvec', 'sparsevec')
    ) as is_vector
) x
where a.attrelid = any (%s) and a.attnum > 0 and not a.attisdropped
order by a.attrelid, a.attname collate "C"
