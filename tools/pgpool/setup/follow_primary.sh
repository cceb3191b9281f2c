#!/bin/bash
# follow_primary_command: makes a standby follow the new primary. One that does
# not answer is left alone: pcp_recovery_node brings it back.
node_id=$1 node_host=$2 node_port=$3 node_data=$4
primary_id=$5 primary_host=$6 primary_port=$9 primary_data=${10}

echo "$(date '+%F %T') follow $*" >>{{.Dir}}/log/failover.log
{{.PgBin}}/pg_isready -q -t 3 -h "$node_host" -p "$node_port" || exit 0
set -e
{{.PgBin}}/pg_ctl -D "$node_data" -m fast -w stop
{{- if .Rewind}}
{{.PgBin}}/psql -h "$primary_host" -p "$primary_port" -d postgres -Xqc checkpoint
if {{.PgBin}}/pg_rewind --no-sync -D "$node_data" --source-server="host=$primary_host port=$primary_port dbname=postgres"; then
	{{.Dir}}/etc/standby.sh "$primary_host" "$primary_port" "$node_id" "$node_port" "$node_data"
else
	"$primary_data/basebackup.sh" "$primary_data" "$node_host" "$node_data" "$primary_port" "$node_id" "$node_port" "$primary_host"
fi
{{- else}}
"$primary_data/basebackup.sh" "$primary_data" "$node_host" "$node_data" "$primary_port" "$node_id" "$node_port" "$primary_host"
{{- end}}
"$primary_data/pgpool_remote_start" "$node_host" "$node_data"
. {{.Dir}}/bashrc.ports
exec {{.PgpoolBin}}/pcp_attach_node -w -h 127.0.0.1 -p {{.PcpPort}} -U {{.User}} -n "$node_id"
