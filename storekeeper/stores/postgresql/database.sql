-- The properties of this database that stand in no dump of it. to_jsonb, because the columns' names differ between versions.
select jsonb_build_object(
    'name', d.datname,
    'owner', pg_get_userbyid(d.datdba),
    'encoding', pg_encoding_to_char(d.encoding),
    'locale_provider', case coalesce(to_jsonb(d) ->> 'datlocprovider', 'c') when 'i' then 'icu' when 'b' then 'builtin' else 'libc' end,
    'collate', d.datcollate,
    'ctype', d.datctype,
    'locale', coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale'),
    'icu_rules', to_jsonb(d) ->> 'daticurules',
    'connection_limit', d.datconnlimit,
    'tablespace', t.spcname,
    'comment', shobj_description(d.oid, 'pg_database'),
    'bootstrap', (select rolname from pg_roles where oid = 10),
    'public_schema', exists (select from pg_namespace where nspname = 'public'),
    'privileges', (
        select jsonb_agg(jsonb_build_object(
            'grantee', g.rolname, 'grantor', pg_get_userbyid(a.grantor), 'privilege', a.privilege_type, 'grantable', a.is_grantable
        ) order by g.rolname nulls first, a.privilege_type, a.grantor)
        from aclexplode(d.datacl) a left join pg_roles g on g.oid = a.grantee
    ),
    'has_privileges', d.datacl is not null,
    'settings', coalesce((
        select jsonb_agg(jsonb_build_object(
            'role', r.rolname, 'name', split_part(c.text, '=', 1), 'value', substr(c.text, strpos(c.text, '=') + 1)
        ) order by r.rolname nulls first, c.text)
        from pg_db_role_setting s left join pg_roles r on r.oid = s.setrole cross join lateral unnest(s.setconfig) c(text)
        where s.setdatabase = d.oid
    ), '[]'),
    'tablespaces', coalesce((
        select jsonb_agg(distinct s.spcname) from pg_class c join pg_tablespace s on s.oid = c.reltablespace where s.spcname <> 'pg_global'
    ), '[]'),
    'extensions', coalesce((
        select jsonb_agg(jsonb_build_object(
            'name', e.extname, 'version', e.extversion, 'schema', n.nspname, 'schema_owner', pg_get_userbyid(n.nspowner)
        ) order by e.oid)
        from pg_extension e join pg_namespace n on n.oid = e.extnamespace
    ), '[]')
)
from pg_database d join pg_tablespace t on t.oid = d.dattablespace
where d.datname = current_database()
