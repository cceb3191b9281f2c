// A login by node-postgres over TLS whose certificate is verified, and two queries.
// Arguments: port, user, password, file of the CA.
const { Client } = require('pg');
const [port, user, password, ca] = process.argv.slice(2);
const client = new Client({
  host: '127.0.0.1', port, user, password, database: 'postgres', enableChannelBinding: true,
  ssl: { ca: require('fs').readFileSync(ca, 'utf8') },
});
(async () => {
  await client.connect();
  const who = await client.query('select current_user::text as who');
  const sum = await client.query({ name: 'sum', text: 'select $1::int + $2::int as n', values: [40, 2] });
  console.log(who.rows[0].who, sum.rows[0].n);
  await client.end();
})().catch((err) => { console.log('SQLSTATE', err.code, err.message); process.exit(1); });
