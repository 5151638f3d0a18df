-- What the database is made of, one array of text for each thing. Expressions are left out: their text may change by a dump and a restore
-- (a check on a varchar list does), and so do names that the server makes up for the children of partitioned constraints.
with member as (
    select classid, objid from pg_depend where deptype = 'e'
), space as (
    select n.* from pg_namespace n
    where n.nspname !~ '^pg_' and n.nspname <> 'information_schema' and not exists (select from member m where m.classid = 'pg_namespace'::regclass and m.objid = n.oid)
), relation as (
    select c.*, quote_ident(n.nspname) || '.' || quote_ident(c.relname) as called
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    where n.nspname !~ '^pg_' and n.nspname <> 'information_schema' and c.relpersistence <> 't'
        and not exists (select from member m where m.classid = 'pg_class'::regclass and m.objid = c.oid)
)
select array['extension', e.extname, e.extversion] from pg_extension e
union all
select array['schema', n.nspname, pg_get_userbyid(n.nspowner)] from space n
union all
select array['schema privilege', n.nspname, coalesce(nullif(a.grantee, 0)::regrole::text, 'public'), a.privilege_type, a.is_grantable::text]
from space n, aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a
union all
select array['relation', r.called, r.relkind::text, r.relpersistence::text, pg_get_userbyid(r.relowner), r.relispopulated::text,
    r.relrowsecurity::text, r.relforcerowsecurity::text]
from relation r where r.relkind in ('r', 'p', 'v', 'm', 'f', 'S', 'c')
union all
select array['privilege', r.called, coalesce(nullif(a.grantee, 0)::regrole::text, 'public'), a.privilege_type, a.is_grantable::text]
from relation r, aclexplode(coalesce(r.relacl, acldefault(case r.relkind when 'S' then 's'::"char" else 'r'::"char" end, r.relowner))) a
where r.relkind in ('r', 'p', 'v', 'm', 'f', 'S') and a.privilege_type <> 'MAINTAIN'
union all
select array['column', r.called, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull::text, a.atthasdef::text,
    a.attidentity::text, a.attgenerated::text, nullif(a.attcollation, 0)::regcollation::text]
from relation r join pg_attribute a on a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped
where r.relkind in ('r', 'p', 'v', 'm', 'f', 'c')
union all
select array['constraint', r.called, k.conname, k.contype::text, k.convalidated::text, k.condeferrable::text, k.condeferred::text,
    (select string_agg(quote_ident(a.attname), ',' order by u.n) from unnest(k.conkey) with ordinality u(num, n)
        join pg_attribute a on a.attrelid = k.conrelid and a.attnum = u.num),
    nullif(k.confrelid, 0)::regclass::text,
    (select string_agg(quote_ident(a.attname), ',' order by u.n) from unnest(k.confkey) with ordinality u(num, n)
        join pg_attribute a on a.attrelid = k.confrelid and a.attnum = u.num),
    k.confupdtype::text || k.confdeltype::text || k.confmatchtype::text]
from relation r join pg_constraint k on k.conrelid = r.oid
where k.contype in ('c', 'f', 'p', 'u', 'x') and k.conparentid = 0
union all
select array['index', t.called, r.relname, i.indisunique::text, i.indisprimary::text, m.amname, array_to_string(r.reloptions, ','),
    (select string_agg(coalesce(quote_ident(a.attname), '()'), ',' order by u.n) from unnest(i.indkey::int2[]) with ordinality u(num, n)
        left join pg_attribute a on a.attrelid = i.indrelid and a.attnum = u.num and u.num > 0),
    (select string_agg(c.opcname, ',' order by u.n) from unnest(i.indclass::oid[]) with ordinality u(num, n) join pg_opclass c on c.oid = u.num)]
from pg_index i join relation r on r.oid = i.indexrelid join relation t on t.oid = i.indrelid join pg_am m on m.oid = r.relam
where (i.indisvalid or r.relkind = 'I') and i.indisready
union all
select array['function', quote_ident(n.nspname) || '.' || quote_ident(p.proname), pg_get_function_identity_arguments(p.oid), p.prokind::text, l.lanname,
    p.prosecdef::text, p.provolatile::text, p.proisstrict::text, pg_get_userbyid(p.proowner),
    case when to_jsonb(p) ->> 'prosqlbody' is null then md5(p.prosrc) end]
from pg_proc p join space n on n.oid = p.pronamespace join pg_language l on l.oid = p.prolang
where not exists (select from member m where m.classid = 'pg_proc'::regclass and m.objid = p.oid)
union all
select array['trigger', r.called, t.tgname, t.tgfoid::regprocedure::text, t.tgtype::text, t.tgenabled::text]
from pg_trigger t join relation r on r.oid = t.tgrelid
where not t.tgisinternal and t.tgparentid = 0
union all
select array['policy', r.called, p.polname, p.polcmd::text, p.polpermissive::text,
    (select string_agg(coalesce(nullif(u.role, 0)::regrole::text, 'public'), ',' order by nullif(u.role, 0)::regrole::text) from unnest(p.polroles) u(role))]
from pg_policy p join relation r on r.oid = p.polrelid
union all
select array['type', quote_ident(n.nspname) || '.' || quote_ident(t.typname), t.typtype::text, pg_get_userbyid(t.typowner), t.typnotnull::text,
    case when t.typtype = 'd' then format_type(t.typbasetype, t.typtypmod) end,
    (select json_agg(e.enumlabel order by e.enumsortorder)::text from pg_enum e where e.enumtypid = t.oid)]
from pg_type t join space n on n.oid = t.typnamespace
where t.typtype in ('e', 'd', 'r') and not exists (select from member m where m.classid = 'pg_type'::regclass and m.objid = t.oid)
union all
select array['event trigger', e.evtname, e.evtevent, e.evtenabled::text, pg_get_userbyid(e.evtowner)] from pg_event_trigger e
