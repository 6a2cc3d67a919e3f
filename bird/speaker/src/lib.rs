//! The BGP speaker as a value: sessions, RIBs, decision, filters, export groups, restart.
