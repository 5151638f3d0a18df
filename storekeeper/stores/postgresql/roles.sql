-- The roles that this database refers to (owners, grantees, policies, settings), and those that they are members of.
with recursive referred as (
    select d.refobjid as oid
    from pg_shdepend d
    join pg_database b on b.datname = current_database()
    where d.refclassid = 'pg_authid'::regclass and (d.dbid = b.oid or (d.classid = 'pg_database'::regclass and d.objid = b.oid))
    union
    select datdba from pg_database where datname = current_database()
    union
    select s.setrole from pg_db_role_setting s join pg_database b on b.oid = s.setdatabase where b.datname = current_database() and s.setrole <> 0
    union
    select m.roleid from pg_auth_members m join referred r on r.oid = m.member
)
select jsonb_build_object(
    'name', r.rolname,
    'superuser', r.rolsuper,
    'inherit', r.rolinherit,
    'create_role', r.rolcreaterole,
    'create_database', r.rolcreatedb,
    'login', r.rolcanlogin,
    'replication', r.rolreplication,
    'bypass_rls', r.rolbypassrls,
    'connection_limit', r.rolconnlimit,
    'valid_until', r.rolvaliduntil::text,
    'comment', shobj_description(r.oid, 'pg_authid'),
    'settings', coalesce((
        select jsonb_agg(jsonb_build_object('name', split_part(c.text, '=', 1), 'value', substr(c.text, strpos(c.text, '=') + 1)) order by c.text)
        from pg_db_role_setting s cross join lateral unnest(s.setconfig) c(text)
        where s.setdatabase = 0 and s.setrole = r.oid
    ), '[]'),
    'member_of', coalesce((
        select jsonb_agg(jsonb_build_object('role', g.rolname, 'admin', m.admin_option,
            'inherit', to_jsonb(m) -> 'inherit_option', 'set', to_jsonb(m) -> 'set_option') order by g.rolname)
        from pg_auth_members m join pg_roles g on g.oid = m.roleid
        where m.member = r.oid
    ), '[]')
)
from referred join pg_roles r on r.oid = referred.oid
where r.rolname !~ '^pg_'
order by r.rolname collate "C"
