#!/bin/bash
# recovery_1st_stage_command: makes a standby from a copy of the primary.
set -eu
primary_data=$1 node_host=$2 node_data=$3 primary_port=$4 node_id=$5 node_port=$6 primary_host=$7

echo "$(date '+%F %T') basebackup $*" >>{{.Dir}}/log/failover.log
# An old primary that stood still may run on by now.
! {{.PgBin}}/pg_ctl -D "$node_data" status >/dev/null 2>&1 || {{.PgBin}}/pg_ctl -D "$node_data" -m immediate -w -t 20 stop || :
rm -rf "$node_data"
{{.PgBin}}/pg_basebackup -h "$primary_host" -p "$primary_port" -D "$node_data" -X stream -c fast
exec {{.Dir}}/etc/standby.sh "$primary_host" "$primary_port" "$node_id" "$node_port" "$node_data"
