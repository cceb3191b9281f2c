#!/bin/bash
# failover_command: promotes a standby when the primary has failed.
failed_id=$1 failed_host=$2 failed_port=$3 failed_data=$4
new_id=$5 new_host=$6 old_main_id=$7 old_primary_id=$8
new_port=$9 new_data=${10} old_primary_host=${11} old_primary_port=${12}

echo "$(date '+%F %T') failover $*" >>{{.Dir}}/log/failover.log
{{- if not .Streams}}
exit 0 # nobody is promoted: every server can be written to
{{- end}}
if [ "$new_id" -lt 0 ]; then
	echo "failover.sh: no node is left to promote"
	exit 0
fi
if [ "$failed_id" != "$old_primary_id" ]; then
{{- if .Slots}}
	{{.PgBin}}/psql -h "$old_primary_host" -p "$old_primary_port" -d postgres -Xqc \
		"select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = 'node$failed_id' and not active" || :
{{- end}}
	exit 0
fi
exec {{.PgBin}}/pg_ctl -D "$new_data" -w promote
