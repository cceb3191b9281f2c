package parser

import "sync/atomic"

// A Name is a possibly qualified name, folded as PostgreSQL folds it. Schema is
// empty if the text does not give one.
type Name struct{ Schema, Name string }

// String gives the name as it would be written without quotes.
func (n Name) String() string {
	if n.Schema == "" {
		return n.Name
	}
	return n.Schema + "." + n.Name
}

// A Verdict holds the facts about one SQL text. It is immutable and shared by
// all sessions; callers must not change anything it refers to.
type Verdict struct {
	Class Class
	// Kind is the column of SHOW POOL_BACKEND_STATS that counts the statement.
	Kind Kind
	// Text is the statement's own text, without the semicolon, in the parts of a
	// multi-statement string, in PREPARE and in statements whose settings are to be replayed;
	// empty in all others, as their verdict may be shared by texts that differ
	// in literals.
	Text string

	// Reads: as far as the text shows, the statement only reads, whatever node
	// runs it: a SELECT without INTO, lock or writing WITH; COPY such TO STDOUT;
	// SHOW; EXPLAIN of anything without ANALYZE, and with ANALYZE of a read.
	// The functions it calls may still write: ask catalog.
	Reads bool
	// Writes: it changes, or may change, data or schema.
	Writes bool
	// Locks: it has a FOR UPDATE/SHARE clause somewhere, or is a LOCK.
	Locks bool
	// SkipsLocked: one of them passes over what others have locked.
	SkipsLocked bool
	// LightLock: it is a LOCK in a mode a standby grants (ACCESS SHARE, ROW SHARE).
	LightLock bool
	// WritingWith: a WITH clause at some depth contains INSERT, UPDATE, DELETE, MERGE.
	WritingWith bool
	// Opaque: what it does is not in the text (CALL, DO, EXECUTE, unreadable SQL).
	Opaque bool
	// SetsConfig: it calls set_config, whether or not the arguments are known.
	SetsConfig bool

	// Relations are all tables, views and sequences named, CTE names left out.
	Relations []Name
	// Functions are all functions called by name. Operators are those used that
	// are not plain arithmetic or comparison.
	Functions, Operators []Name
	// Types are those it casts to, but for those written as pg_catalog's (as the
	// grammar does with int, varchar and the like).
	Types []Name
	// Written are the relations the statement writes or locks, as far as the text
	// shows: targets of INSERT, UPDATE, MERGE, TRUNCATE, COPY FROM; for DELETE, for
	// writing WITH and for locking clauses every relation named.
	Written []Name

	// Fickle: as far as the text shows, its result may differ from one time to the
	// next although no table has changed: CURRENT_TIMESTAMP and its kin, TABLESAMPLE,
	// casts that may read a clock or a catalog. What functions do is for catalog to say.
	Fickle bool
	// Everywhere: it changes what all databases of the servers have in common: roles and
	// their memberships, settings of roles and databases, databases themselves, the
	// server's configuration.
	Everywhere bool

	// Database is the one that nobody else may be connected to while the statement
	// runs: DROP DATABASE, CREATE DATABASE with a template, ALTER DATABASE RENAME TO
	// and SET TABLESPACE.
	Database string

	// Creates, Drops and Renames tell of relations made, dropped and renamed. Types
	// and functions made in pg_temp are among Creates.
	Creates []Object
	Drops   []Name
	Renames []Rename
	// DropsTemp: all temporary relations of the session go (DISCARD ALL, DISCARD TEMP).
	DropsTemp bool
	// Catalog: the catalog cache of this database is out of date when it succeeds.
	Catalog bool
	// Enclosable: it is DDL that may run in a transaction block.
	Enclosable bool

	// Transaction is set for transaction control, SET TRANSACTION and
	// SET SESSION CHARACTERISTICS.
	Transaction *Transaction
	// Settings are the session settings it changes, in order, with the text that
	// repeats them on another server.
	Settings []Setting
	// SettingsUnknown: it changes settings in a way the text does not tell
	// (set_config with arguments that are no constants, unreadable SQL).
	SettingsUnknown Scope

	// Parts are the statements of a multi-statement string (Class Multi), each
	// with its own Text; the flags above are the union of theirs.
	Parts []*Verdict
	// Inner is the statement inside PREPARE, EXPLAIN, DECLARE and COPY (query).
	Inner *Verdict

	// Name is the object of session commands, folded: the prepared statement of
	// PREPARE, EXECUTE, DEALLOCATE; the cursor of DECLARE, FETCH, MOVE, CLOSE; the
	// channel of LISTEN, UNLISTEN, NOTIFY; the parameter of SHOW. Empty means ALL (or *).
	Name string
	// Hold: DECLARE ... WITH HOLD.
	Hold bool
	// Analyze: the word ANALYZE stands in EXPLAIN's options, and is not switched off.
	Analyze bool
	// Terminates is the argument of pg_terminate_backend(<integer constant>) when the
	// statement is a SELECT of nothing else; 0 otherwise.
	Terminates int

	// Pool is set when the text is one of pgpool's own commands (Class Pool).
	Pool *PoolCommand

	// Lead tells how the text begins.
	Lead Lead

	// Memo is where catalog keeps what it has found out about the verdict's names,
	// so that a statement already known costs no look-up. It is the one part of a
	// verdict that changes; nobody else touches it.
	Memo atomic.Value
	// Dependence is the same for what the query cache asks of catalog.
	Dependence atomic.Value

	// size is about how much memory the verdict holds on to.
	size int
	// shareable: literals do not matter, so the normalised text may be the key.
	shareable bool
}

// Scope says how long a change lasts.
type Scope uint8

// Scopes of a change of settings.
const (
	ScopeNone        Scope = iota
	ScopeTransaction       // SET LOCAL: until the transaction ends
	ScopeSession
)

// An Object is a relation that a statement creates.
type Object struct {
	Name     Name
	Temp     bool // TEMP, TEMPORARY, LOCAL TEMP, or created in pg_temp
	Unlogged bool
	// OnCommitDrop: a temporary table that goes with its transaction.
	OnCommitDrop bool
}

// A Rename is a relation's change of name.
type Rename struct {
	From Name
	To   string
}

// TxOp is a transaction control operation.
type TxOp uint8

// Transaction control operations.
const (
	TxBegin TxOp = iota + 1
	TxCommit
	TxRollback
	TxSavepoint
	TxRelease
	TxRollbackTo
	TxPrepare
	TxCommitPrepared
	TxRollbackPrepared
	TxSet             // SET TRANSACTION
	TxCharacteristics // SET SESSION CHARACTERISTICS AS TRANSACTION
)

// Isolation is a transaction isolation level; the zero value means "not said".
type Isolation uint8

// Isolation levels.
const (
	IsolationDefault Isolation = iota
	ReadUncommitted
	ReadCommitted
	RepeatableRead
	Serializable
)

var isolationNames = [...]string{"", "read uncommitted", "read committed", "repeatable read", "serializable"}

// String gives the level as PostgreSQL's transaction_isolation shows it.
func (i Isolation) String() string { return isolationNames[i] }

// ParseIsolation reads a level as SET transaction_isolation takes it.
func ParseIsolation(s string) (Isolation, bool) {
	for i, n := range isolationNames {
		if i > 0 && equalFold(s, n) {
			return Isolation(i), true
		}
	}
	return IsolationDefault, false
}

// Tri is a mode that may be left unsaid.
type Tri uint8

// Values of Tri.
const (
	Unsaid Tri = iota
	On
	Off
)

// A Transaction holds what a transaction control statement says.
type Transaction struct {
	Op         TxOp
	Isolation  Isolation
	ReadOnly   Tri // On: READ ONLY; Off: READ WRITE
	Deferrable Tri
	Chain      bool   // AND CHAIN
	Savepoint  string // SAVEPOINT, RELEASE, ROLLBACK TO
	GID        string // two-phase commit
	Snapshot   bool   // SET TRANSACTION SNAPSHOT
}

// SetOp is how a statement changes a setting.
type SetOp uint8

// Ways to change settings.
const (
	SetValue           SetOp = iota + 1
	SetDefault               // SET x TO DEFAULT, RESET x
	SetResetAll              // RESET ALL, DISCARD ALL
	SetConfig                // SELECT set_config(...) with constant arguments
	SetCharacteristics       // SET SESSION CHARACTERISTICS
	SetTransaction           // SET TRANSACTION
)

// A Setting is one change of a session setting. Role and session authorization
// are settings too, under the names "role" and "session_authorization".
type Setting struct {
	Op    SetOp
	Name  string // folded; empty for SetResetAll, SetTransaction, SetCharacteristics
	Value string // as SHOW would give it, lists joined by ", "; empty for SetDefault
	Local bool   // until the end of the transaction
	// Replay is SQL that does the same on another server.
	Replay string
	// PrimaryOnly: a standby refuses it (SERIALIZABLE, READ WRITE), or it has no
	// meaning there; it must not be replayed there.
	PrimaryOnly bool
}

// Lead tells how a text begins, for allow_sql_comments and ignore_leading_white_space.
type Lead struct {
	Space         bool // white space comes first
	Comment       bool // a comment comes before the first word
	NoLoadBalance bool // that comment is /*NO LOAD BALANCE*/
	Target        Target
	Cache         CacheWish
}

// Target is a wish for a node, spoken in a leading comment: /* pgpool.target = primary */.
type Target uint8

// Targets.
const (
	TargetNone Target = iota
	TargetAuto
	TargetPrimary
	TargetStandby
)

// CacheWish is what a leading comment says of the query cache.
type CacheWish uint8

// Wishes: /*NO QUERY CACHE*/ and /*FORCE QUERY CACHE*/.
const (
	CacheUnsaid CacheWish = iota
	CacheNo
	CacheForce
)

// ParseTarget reads the value of the setting pgpool.target.
func ParseTarget(s string) (Target, bool) {
	switch {
	case equalFold(s, "auto"):
		return TargetAuto, true
	case equalFold(s, "primary"):
		return TargetPrimary, true
	case equalFold(s, "standby"):
		return TargetStandby, true
	}
	return TargetNone, false
}

// PoolOp is one of pgpool's own commands.
type PoolOp uint8

// pgpool's own commands.
const (
	PoolShow        PoolOp = iota + 1 // SHOW POOL_xxx; Name is the folded name ("pool_nodes")
	PoolShowSetting                   // PGPOOL SHOW name
	PoolShowAll                       // PGPOOL SHOW ALL
	PoolSet                           // PGPOOL SET name = value
	PoolSetDefault                    // PGPOOL SET name = DEFAULT
	PoolReset                         // PGPOOL RESET name
	PoolResetAll                      // PGPOOL RESET ALL
	PoolCacheDelete                   // PGPOOL SET CACHE DELETE 'query'; Value is the query
	PoolExplain                       // EXPLAIN ROUTING statement; Value is the statement
)

// A PoolCommand is a command that pgpool answers by itself.
type PoolCommand struct {
	Op    PoolOp
	Name  string // folded unless it was quoted
	Value string
}
