//! openraft's glue. See ARCHITECTURE.md.
