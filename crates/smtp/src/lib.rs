//! Sans-I/O SMTP: commands, replies, state machines and the DATA/BDAT receiver.
