package parser

// Class is the class of a statement.
type Class uint8

// Classes of statements.
const (
	Unknown    Class = iota // cannot be read: newer syntax, an error, or too large
	Empty                   // nothing but space, comments and semicolons
	Multi                   // more than one statement
	Pool                    // a command to pgpool itself
	Replicate               // a walsender command (IDENTIFY_SYSTEM, START_REPLICATION ...)
	Select                  // SELECT, VALUES, TABLE, WITH ... SELECT, set operations
	SelectInto              // SELECT ... INTO
	Insert
	Update
	Delete
	Merge
	Truncate
	CopyIn   // COPY ... FROM STDIN
	CopyOut  // COPY ... TO STDOUT
	CopyFile // COPY with a file or program on the server, either way
	Explain  // EXPLAIN, with or without ANALYZE: see Verdict.Analyze and Inner
	Show     // SHOW of a server setting
	Set      // SET, also SET ROLE and SET SESSION AUTHORIZATION
	Reset
	SetTx          // SET TRANSACTION
	SetCharacter   // SET SESSION CHARACTERISTICS AS TRANSACTION
	SetConstraints // SET CONSTRAINTS
	Discard        // DISCARD ALL | PLANS | SEQUENCES | TEMP: see Name
	Begin          // BEGIN, START TRANSACTION
	Commit         // COMMIT, END
	Rollback       // ROLLBACK, ABORT
	Savepoint
	Release
	RollbackTo
	PrepareTransaction
	CommitPrepared
	RollbackPrepared
	Lock
	Prepare
	Execute
	Deallocate
	Declare
	Fetch // FETCH and MOVE
	CloseCursor
	Listen
	Unlisten
	Notify
	Call
	Do
	DDL         // everything that changes the schema, and COMMENT, GRANT ...
	Maintenance // VACUUM, ANALYZE, CLUSTER, REINDEX, CHECKPOINT, LOAD, REFRESH
	lastClass
)

var classNames = [...]string{
	"unknown", "empty", "multi", "pool", "replication", "select", "select into", "insert", "update", "delete", "merge",
	"truncate", "copy in", "copy out", "copy file", "explain", "show", "set", "reset", "set transaction",
	"set session characteristics", "set constraints", "discard", "begin", "commit", "rollback", "savepoint", "release",
	"rollback to", "prepare transaction", "commit prepared", "rollback prepared", "lock", "prepare", "execute",
	"deallocate", "declare", "fetch", "close", "listen", "unlisten", "notify", "call", "do", "ddl", "maintenance",
}

// String names the class in words.
func (c Class) String() string { return classNames[c] }

// Kind is a column of SHOW POOL_BACKEND_STATS.
type Kind uint8

// Kinds of statements, as pgpool counts them.
const (
	KindOther Kind = iota
	KindSelect
	KindInsert
	KindUpdate
	KindDelete
	KindDDL
)

var kindNames = [...]string{"other", "select", "insert", "update", "delete", "ddl"}

// String names the kind.
func (k Kind) String() string { return kindNames[k] }

// FunctionCall is the verdict on a FunctionCall message (the fast path), which
// has no text: it may do anything.
var FunctionCall = &Verdict{Class: Call, Writes: true, Opaque: true}
