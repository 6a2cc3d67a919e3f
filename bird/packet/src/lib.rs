//! Bytes to BGP messages and back, with RFC 7606 verdicts.
