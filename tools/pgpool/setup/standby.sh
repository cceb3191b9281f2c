#!/bin/bash
# Gives a copy of the primary's data what makes it a standby of its own.
#   standby.sh PRIMARY_HOST PRIMARY_PORT NODE_ID NODE_PORT NODE_DATA
set -eu
primary_host=$1 primary_port=$2 node_id=$3 node_port=$4 node_data=$5
cat >"$node_data/node.conf" <<CONF
port = $node_port
primary_conninfo = 'host=$primary_host port=$primary_port user={{.User}} application_name=node$node_id'
{{- if .Slots}}
primary_slot_name = 'node$node_id'
{{- end}}
restore_command = 'cp "{{.Dir}}/archivedir/%f" "%p" 2>/dev/null'
CONF
touch "$node_data/standby.signal"
{{- if .Slots}}
{{.PgBin}}/psql -h "$primary_host" -p "$primary_port" -d postgres -Xqc \
	"select pg_create_physical_replication_slot('node$node_id', true) where not exists (select from pg_replication_slots where slot_name = 'node$node_id')" >/dev/null
{{- end}}
