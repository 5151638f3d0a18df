-- Tables with a graph index over vectors, and the vectors' dimensions.
select n.nspname as schema, c.relname as name, max(a.atttypmod) as dimensions
from pg_index i
join pg_class x on x.oid = i.indexrelid
join pg_am m on m.oid = x.relam and m.amname = 'hnsw'
join pg_class c on c.oid = i.indrelid
join pg_namespace n on n.oid = c.relnamespace
join pg_attribute a on a.attrelid = x.oid and a.atttypmod > 0
group by n.nspname, c.relname
