package pgpool

// Version is what SHOW POOL_VERSION and the tools tell. Scripts read it as the
// original's, so it begins with the version of the original whose behaviour is
// followed; our own stands behind it.
const Version = "4.3.5 (tamahomeboshi)"
