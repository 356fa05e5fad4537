//! Client SDK: sessions that resume, spool, reconnect.
