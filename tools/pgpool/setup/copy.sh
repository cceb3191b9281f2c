#!/bin/bash
{{- if .Replicates}}
# recovery_1st_stage_command: copies a server while others write to it. What is
# written after the copy comes from the archive, when the second stage is over.
{{- else}}
# Makes a server from a copy of another one. It is its own from then on.
{{- end}}
set -eu
main_data=$1 node_host=$2 node_data=$3 main_port=$4 node_id=$5 node_port=$6 main_host=$7

echo "$(date '+%F %T') basebackup $*" >>{{.Dir}}/log/failover.log
! {{.PgBin}}/pg_ctl -D "$node_data" status >/dev/null 2>&1 || {{.PgBin}}/pg_ctl -D "$node_data" -m immediate -w -t 20 stop || :
rm -rf "$node_data" "{{.Dir}}/archivedir/$(basename "$node_data")"
{{.PgBin}}/pg_basebackup -h "$main_host" -p "$main_port" -D "$node_data" -X stream -c fast
cat >"$node_data/node.conf" <<CONF
port = $node_port
{{- if .Replicates}}
hot_standby = off
restore_command = 'cp "{{.Dir}}/archivedir/$(basename "$main_data")/%f" "%p" 2>/dev/null'
{{- end}}
CONF
{{- if .Replicates}}
touch "$node_data/recovery.signal"
{{- end}}
