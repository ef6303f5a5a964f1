//! Fills real servers with data of every kind.
//!
//! The contents are the same in each run, apart from the instants that a server writes itself. Nothing expires within
//! the hour.

use super::resp::{Connection, Pipeline, Value};
use super::server::RedisServer;
use super::until;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Instants of expiry that are not near, in Unix milliseconds: the years 2100 and 9999, and far beyond any calendar.
const FAR_AT_MS: [u64; 3] = [4_102_444_800_001, 253_402_300_799_999, 9_007_199_254_740_991];

/// Time until the nearest expiry.
const NEAR: Duration = Duration::from_secs(3600);

/// Requests go out when so many bytes are waiting.
const BATCH_BYTES: usize = 1024 * 1024;

/// Requests go out when so many are waiting.
const BATCH_REQUESTS: usize = 5000;

/// Time that a server may take for one batch or one bulk command.
const FILL_PATIENCE: Duration = Duration::from_secs(300);

/// Size of the pieces of a big string, in bytes.
const PIECE_BYTES: usize = 1024 * 1024;

/// Size of the values of [`fill_mixed`], in bytes.
pub const MIXED_VALUE_BYTES: usize = 1024;

/// Bytes that do not compress, the same for the same seed.
#[derive(Clone, Debug)]
pub struct Noise(u64);

impl Noise {
    /// Starts a row of bytes.
    pub fn new(seed: u64) -> Self {
        Self(seed ^ 0x9e37_79b9_7f4a_7c15)
    }

    /// The next number (splitmix64).
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let number = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^ (number >> 31)
    }

    /// The next `length` bytes.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length);
        self.extend(&mut bytes, length);
        bytes
    }

    /// Appends the next `length` bytes.
    pub fn extend(&mut self, bytes: &mut Vec<u8>, length: usize) {
        let end = bytes.len() + length;
        while bytes.len() + 8 <= end {
            bytes.extend_from_slice(&self.number().to_le_bytes());
        }
        let rest = end - bytes.len();
        bytes.extend_from_slice(&self.number().to_le_bytes()[..rest]);
    }
}

/// Bytes that do not compress, in bulk: the same noise over and over, with a period beyond what compressors look back.
///
/// In an unoptimised build it is ten times as fast as [`Noise`].
#[derive(Clone, Debug, Default)]
pub struct Torrent {
    at: usize,
}

/// Period of a [`Torrent`], in bytes. Up to level 18 zstd looks back no more than 4 MiB.
const TORRENT_BYTES: usize = 8 * 1024 * 1024;

impl Torrent {
    /// Appends the next `length` bytes.
    pub fn extend(&mut self, bytes: &mut Vec<u8>, mut length: usize) {
        static NOISE: OnceLock<Vec<u8>> = OnceLock::new();
        let noise = NOISE.get_or_init(|| Noise::new(0).bytes(TORRENT_BYTES));
        while length > 0 {
            let piece = length.min(TORRENT_BYTES - self.at);
            bytes.extend_from_slice(&noise[self.at..self.at + piece]);
            self.at = (self.at + piece) % TORRENT_BYTES;
            length -= piece;
        }
    }

    /// The next `length` bytes.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length);
        self.extend(&mut bytes, length);
        bytes
    }
}

/// Text that compresses to a fraction.
pub fn prose(length: usize) -> Vec<u8> {
    b"the quick brown fox jumps over the lazy dog; ".iter().copied().cycle().take(length).collect()
}

/// Now, in Unix milliseconds.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map(|time| time.as_millis() as u64).expect("the clock is past 1970")
}

/// Sends requests in batches and insists that each succeeds.
pub struct Filler {
    connection: Connection,
    pipeline: Pipeline,
}

impl Filler {
    /// Opens a connection of its own.
    pub async fn open(server: &RedisServer) -> Self {
        Self { connection: server.connect().await.patience(FILL_PATIENCE), pipeline: Pipeline::default() }
    }

    /// Adds a request of mixed arguments.
    pub async fn add(&mut self, request: &[&(dyn AsRef<[u8]> + Sync)]) {
        self.pipeline.push(request);
        if self.pipeline.size_bytes() >= BATCH_BYTES || self.pipeline.len() >= BATCH_REQUESTS {
            self.flush().await;
        }
    }

    /// Adds a request given as words with single blanks between them.
    pub async fn words(&mut self, request: &str) {
        self.pipeline.push(&request.split(' ').collect::<Vec<_>>());
        if self.pipeline.len() >= BATCH_REQUESTS {
            self.flush().await;
        }
    }

    /// Sends what is waiting. Must be called at the end.
    ///
    /// # Panics
    ///
    /// When the server refuses a request.
    pub async fn flush(&mut self) -> Vec<Value> {
        let replies = self.connection.pipeline(&self.pipeline).await;
        self.pipeline.clear();
        for (number, reply) in replies.iter().enumerate() {
            assert!(reply.error().is_none(), "request {number} of {} was refused: {reply:?}", replies.len());
        }
        replies
    }
}

/// Fills the databases from 0 to `databases` - 1, each with every type in every encoding, and adds two libraries of
/// functions (from Redis 7.0 on).
///
/// Each database holds some hundred keys and a megabyte.
pub async fn fill_every_type(server: &RedisServer, databases: u32) {
    let modern = server.version() >= (7, 0, 0);
    let fields_expire = knows(server, "HPEXPIREAT").await;
    let mut filler = Filler::open(server).await;
    for database in 0..databases {
        filler.words(&format!("SELECT {database}")).await;
        strings(&mut filler, database).await;
        key_names(&mut filler).await;
        lists(&mut filler, modern).await;
        sets(&mut filler).await;
        sorted_sets(&mut filler).await;
        hashes(&mut filler).await;
        streams(&mut filler, modern).await;
        sketches(&mut filler).await;
        expiries(&mut filler, u64::from(database)).await;
        if fields_expire {
            expiring_fields(&mut filler, u64::from(database)).await;
        }
    }
    filler.flush().await;
    if modern {
        load_functions(server).await;
    }
}

async fn strings(filler: &mut Filler, database: u32) {
    filler.add(&[&"SET", &"string:database", &database.to_string()]).await;
    // At the borders of the integer encodings and just outside of them.
    for number in ["0", "-1", "127", "128", "-128", "-129", "32767", "32768", "-32768", "2147483647", "2147483648", "-2147483648", "-2147483649"] {
        filler.add(&[&"SET", &format!("string:int:{number}"), &number]).await;
    }
    for number in ["9223372036854775807", "-9223372036854775808", "9223372036854775808", "007", "+7", "-0", " 7", "3.14"] {
        filler.add(&[&"SET", &format!("string:number:{number}"), &number]).await;
    }
    filler.words("SET string:embstr short").await;
    // At the borders of the length encodings.
    for length in [0, 1, 44, 45, 63, 64, 16_383, 16_384] {
        filler.add(&[&"SET", &format!("string:noise:{length}"), &Noise::new(length).bytes(length as usize)]).await;
    }
    filler.add(&[&"SET", &"string:prose:100000", &prose(100_000)]).await;
    filler.add(&[&"SET", &"string:noise:100000", &Noise::new(5).bytes(100_000)]).await;
    filler.add(&[&"SET", &"string:every-byte", &(0..=255).collect::<Vec<u8>>()]).await;
    filler.words("APPEND string:appended one").await;
    filler.words("APPEND string:appended two").await;
    filler.words("INCRBYFLOAT string:float 3.5e10").await;
}

async fn key_names(filler: &mut Filler) {
    let names: [&[u8]; 9] =
        [b"", b"\0", b"line\r\nend", b"\xff\xfe\x00\x80", b"12", b"-70000", b"12345678901", " \u{e9}\u{4e2d}\u{1f600}".as_bytes(), b"{tag}name"];
    for name in names {
        filler.add(&[&"SET", &name, &"named"]).await;
    }
    filler.add(&[&"SET", &prose(20_000), &"compressible name"]).await;
    filler.add(&[&"SET", &Noise::new(6).bytes(70_000), &"long name"]).await;
    filler.add(&[&"RPUSH", &&b"list\x00\xff"[..], &"named"]).await;
}

async fn lists(filler: &mut Filler, modern: bool) {
    for item in [&b"a"[..], b"", b"-12", b"4294967296", b"\x00\xff", &prose(70), &prose(5000)] {
        filler.add(&[&"RPUSH", &"list:small", &item]).await;
    }
    for number in 0..2000 {
        filler.add(&[&"RPUSH", &"list:large", &format!("item-{number}")]).await;
        filler.add(&[&"LPUSH", &"list:numbers", &(number * number).to_string()]).await;
    }
    // Inner nodes are compressed only while the depth says so, and stay compressed.
    filler.words("CONFIG SET list-compress-depth 1").await;
    for number in 0..400 {
        filler.add(&[&"RPUSH", &"list:compressed", &prose(100 + number)]).await;
    }
    filler.words("CONFIG SET list-compress-depth 0").await;
    if modern {
        // Larger items get a plain node of their own.
        filler.words("DEBUG QUICKLIST-PACKED-THRESHOLD 4K").await;
    }
    filler.words("RPUSH list:plain before").await;
    filler.add(&[&"RPUSH", &"list:plain", &Noise::new(7).bytes(50_000), &prose(60_000)]).await;
    filler.words("RPUSH list:plain after").await;
    if modern {
        filler.words("DEBUG QUICKLIST-PACKED-THRESHOLD 0").await;
    }
}

async fn sets(filler: &mut Filler) {
    filler.words("SADD set:intset:16 1 2 -3 32767").await;
    filler.words("SADD set:intset:32 1 70000 -70000").await;
    filler.words("SADD set:intset:64 1 9223372036854775807 -9223372036854775808").await;
    filler.add(&[&"SADD", &"set:small", &"a", &"", &"12", &&b"\xff\x00"[..]]).await;
    for number in 0..1500 {
        filler.add(&[&"SADD", &"set:large", &format!("member-{number}")]).await;
        filler.add(&[&"SADD", &"set:numbers", &(number * 1000).to_string()]).await;
    }
    filler.add(&[&"SADD", &"set:long", &prose(3000), &Noise::new(8).bytes(3000)]).await;
}

async fn sorted_sets(filler: &mut Filler) {
    for key in ["zset:small", "zset:large"] {
        filler.add(&[&"ZADD", &key, &"inf", &"highest", &"+inf", &"highest too", &"-inf", &"lowest"]).await;
        filler.add(&[&"ZADD", &key, &"7", &"tie-b", &"7", &"tie-a", &"7", &"tie-c", &"0", &"zero", &"-0", &"minus zero"]).await;
        filler.add(&[&"ZADD", &key, &"0.1", &"", &"-3.141592653589793", &"pi", &"1.7976931348623157e308", &"max", &"5e-324", &"min"]).await;
        filler.add(&[&"ZADD", &key, &"9007199254740993", &"odd", &"1e17", &"wide", &"-1", &&b"\x00\xff"[..]]).await;
    }
    for number in 0..1000 {
        filler.add(&[&"ZADD", &"zset:large", &format!("{}.{number}", number % 50), &format!("member-{number}")]).await;
    }
    filler.add(&[&"ZADD", &"zset:long", &"1", &prose(3000), &"2", &Noise::new(9).bytes(3000)]).await;
    filler.words("GEOADD geo 13.361389 38.115556 Palermo 15.087269 37.502669 Catania -180 85 edge").await;
}

async fn hashes(filler: &mut Filler) {
    filler.add(&[&"HSET", &"hash:small", &"field", &"value", &"", &"", &"12", &"-34", &&b"\x00"[..], &&b"\xff"[..]]).await;
    for number in 0..1500 {
        filler.add(&[&"HSET", &"hash:large", &format!("field-{number}"), &format!("value-{number}")]).await;
    }
    filler.add(&[&"HSET", &"hash:long", &"prose", &prose(3000), &"noise", &Noise::new(10).bytes(3000)]).await;
}

async fn streams(filler: &mut Filler, modern: bool) {
    filler.words("XADD stream:small 1-1 field value").await;
    filler.add(&[&"XADD", &"stream:small", &"1-2", &"", &"", &&b"\x00\xff"[..], &prose(2000)]).await;
    filler.words("XADD stream:small 18446744073709551614-18446744073709551615 last id").await;

    // Several nodes, entries of the same and of other fields, holes at both ends and in the middle.
    for number in 1..=750 {
        match number % 10 {
            0 => filler.add(&[&"XADD", &"stream:large", &format!("{number}-7"), &"other", &Noise::new(number).bytes(40)]).await,
            _ => filler.add(&[&"XADD", &"stream:large", &format!("{number}-0"), &"field", &number.to_string(), &"text", &"value"]).await,
        }
    }
    filler.words("XGROUP CREATE stream:large early 0").await;
    filler.words("XGROUP CREATE stream:large late $").await;
    filler.words("XGROUP CREATE stream:large middle 300-7").await;
    filler.words("XREADGROUP GROUP early alice COUNT 120 STREAMS stream:large >").await;
    filler.words("XREADGROUP GROUP early bob COUNT 7 STREAMS stream:large >").await;
    filler.words("XREADGROUP GROUP middle carol COUNT 3 NOACK STREAMS stream:large >").await;
    filler.words("XREADGROUP GROUP middle alice COUNT 3 STREAMS stream:large >").await;
    filler.words("XACK stream:large early 1-0 2-0 3-0 50-7").await;
    filler.words("XCLAIM stream:large early dave 0 11-0 12-0 IDLE 5000 RETRYCOUNT 9").await;
    filler.words("XDEL stream:large 1-0 2-0 12-0 60-7 400-7 401-0 750-7").await;
    for number in 500..600 {
        filler.add(&[&"XDEL", &"stream:large", &format!("{number}-{}", if number % 10 == 0 { 7 } else { 0 })]).await;
    }
    filler.words("XTRIM stream:large MINID 5").await;

    filler.words("XGROUP CREATE stream:empty group $ MKSTREAM").await;
    filler.words("XREADGROUP GROUP group idle STREAMS stream:empty >").await;
    filler.words("XADD stream:emptied 5-5 field value").await;
    filler.words("XGROUP CREATE stream:emptied group 0").await;
    filler.words("XREADGROUP GROUP group consumer STREAMS stream:emptied >").await;
    filler.words("XDEL stream:emptied 5-5").await;
    filler.words("XADD stream:set 1-1 field value").await;
    if modern {
        filler.words("XGROUP CREATECONSUMER stream:empty group created").await;
        filler.words("XGROUP CREATE stream:set read 0 ENTRIESREAD 3").await;
        filler.words("XSETID stream:set 1000-5 ENTRIESADDED 77 MAXDELETEDID 900-1").await;
    } else {
        filler.words("XSETID stream:set 1000-5").await;
    }
}

async fn sketches(filler: &mut Filler) {
    filler.words("PFADD hll:sparse a b c").await;
    for number in 0..4000 {
        filler.add(&[&"PFADD", &"hll:dense", &format!("element-{number}")]).await;
    }
    filler.words("PFMERGE hll:merged hll:sparse hll:dense").await;
    filler.words("SETBIT bitmap:sparse 800000 1").await;
    for number in 0..400 {
        filler.add(&[&"SETBIT", &"bitmap", &(number * 7).to_string(), &"1"]).await;
    }
}

/// Expiring keys of every type, to the millisecond.
async fn expiries(filler: &mut Filler, salt: u64) {
    let near_ms = now_ms() + NEAR.as_millis() as u64;
    for number in 0..50 {
        let key = format!("expiring:near:{number}");
        filler.add(&[&"SET", &key, &"soon"]).await;
        filler.add(&[&"PEXPIREAT", &key, &(near_ms + number * 997 + salt).to_string()]).await;
    }
    filler.words("SET expiring:string value").await;
    filler.words("RPUSH expiring:list a b").await;
    filler.words("SADD expiring:set a b").await;
    filler.words("ZADD expiring:zset 1 a 2 b").await;
    filler.words("HSET expiring:hash a 1 b 2").await;
    filler.words("XADD expiring:stream 1-1 a 1").await;
    for (number, kind) in ["string", "list", "set", "zset", "hash", "stream"].into_iter().enumerate() {
        let at_ms = FAR_AT_MS[number % FAR_AT_MS.len()] - salt;
        filler.add(&[&"PEXPIREAT", &format!("expiring:{kind}"), &at_ms.to_string()]).await;
    }
}

/// Whether a server knows a command.
pub async fn knows(server: &RedisServer, command: &str) -> bool {
    server.command(&["COMMAND", "INFO", command]).await.items().iter().any(|item| *item != Value::Nil)
}

/// Hashes of which some fields, or all, expire (from Redis 7.4 and Valkey 9.0 on).
async fn expiring_fields(filler: &mut Filler, salt: u64) {
    let near_ms = now_ms() + NEAR.as_millis() as u64;
    for number in 0..600 {
        let (field, value) = (format!("field-{number}"), format!("value-{number}"));
        filler.add(&[&"HSET", &"hash:expiring:large", &field, &value]).await;
        if number % 3 == 0 {
            filler.add(&[&"HPEXPIREAT", &"hash:expiring:large", &(near_ms + number * 1009 + salt).to_string(), &"FIELDS", &"1", &field]).await;
        }
    }
    filler.words("HSET hash:expiring:small stays 1 goes 2 leaves 3").await;
    filler.add(&[&"HPEXPIREAT", &"hash:expiring:small", &(FAR_AT_MS[0] - salt).to_string(), &"FIELDS", &"2", &"goes", &"leaves"]).await;
    filler.words("HSET hash:expiring:all a 1 b 2").await;
    filler.add(&[&"HPEXPIREAT", &"hash:expiring:all", &(near_ms + salt).to_string(), &"FIELDS", &"2", &"a", &"b"]).await;
}

/// Loads two libraries of functions, one of which compresses.
pub async fn load_functions(server: &RedisServer) {
    let small = "#!lua name=small\nredis.register_function('small_echo', function(keys, args) return args[1] end)";
    let mut large = "#!lua name=large\n".to_owned();
    for number in 0..100 {
        large.push_str(&format!("redis.register_function{{function_name='large_{number}', callback=function(keys, args) return {number} end, flags={{'no-writes'}}, description='returns a number'}}\n"));
    }
    for code in [small, &large] {
        let reply = server.command(&["FUNCTION", "LOAD", "REPLACE", code]).await;
        assert!(reply.error().is_none(), "{reply:?}");
    }
}

/// Adds `keys` small strings, `key:0` and so on, to database 0; every tenth expires within a day, but not within the hour.
pub async fn fill_small_keys(server: &RedisServer, keys: u64) {
    let mut filler = Filler::open(server).await;
    filler.words(&format!("DEBUG POPULATE {keys}")).await;
    let near_ms = now_ms() + NEAR.as_millis() as u64;
    for number in (0..keys).step_by(10) {
        filler.add(&[&"PEXPIREAT", &format!("key:{number}"), &(near_ms + number % 82_000_000).to_string()]).await;
    }
    filler.flush().await;
}

/// Adds strings of [`MIXED_VALUE_BYTES`] to database 0 until their values have `bytes`; every other one does not compress.
pub async fn fill_mixed(server: &RedisServer, bytes: u64) {
    let mut filler = Filler::open(server).await;
    let mut noise = Torrent::default();
    let prose = prose(MIXED_VALUE_BYTES);
    for number in 0..bytes.div_ceil(MIXED_VALUE_BYTES as u64) {
        let key = format!("mixed:{number}");
        if number % 2 == 0 {
            filler.add(&[&"SET", &key, &prose]).await;
        } else {
            filler.add(&[&"SET", &key, &noise.bytes(MIXED_VALUE_BYTES)]).await;
        }
    }
    filler.flush().await;
}

/// Makes a string of `bytes` that does not compress, in pieces, and raises `proto-max-bulk-len` where it has to.
pub async fn big_string(server: &RedisServer, key: &str, bytes: u64) {
    let mut filler = begin_big_string(server, key, bytes).await;
    let mut noise = Torrent::default();
    for offset in (0..bytes).step_by(PIECE_BYTES) {
        let piece = noise.bytes((bytes - offset).min(PIECE_BYTES as u64) as usize);
        filler.add(&[&"SETRANGE", &key, &offset.to_string(), &piece]).await;
    }
    filler.flush().await;
}

/// Makes a string of `bytes` that are all zero but the last, so that its dump is small.
pub async fn big_hollow_string(server: &RedisServer, key: &str, bytes: u64) {
    begin_big_string(server, key, bytes).await.flush().await;
}

/// Writes the last byte first, so that the server allocates once.
async fn begin_big_string(server: &RedisServer, key: &str, bytes: u64) -> Filler {
    let mut filler = Filler::open(server).await;
    filler.words(&format!("CONFIG SET proto-max-bulk-len {}", bytes.max(512 * 1024 * 1024))).await;
    filler.add(&[&"DEL", &key]).await;
    filler.add(&[&"SETRANGE", &key, &bytes.saturating_sub(1).to_string(), &"x"]).await;
    filler
}

/// Adds `keys` strings to database 0 that have expired but are still there and in every dump; the server deletes
/// expired keys only on access from then on.
pub async fn fill_lapsed(server: &RedisServer, keys: u64) {
    let mut filler = Filler::open(server).await;
    filler.words("DEBUG SET-ACTIVE-EXPIRE 0").await;
    for number in 0..keys {
        filler.words(&format!("SET lapsed:{number} value PX 1")).await;
    }
    filler.flush().await;
    let set_at_ms = server_time_ms(server).await;
    until("the server's clock goes on", Duration::from_secs(30), async || (server_time_ms(server).await > set_at_ms + 1).then_some(())).await;
}

async fn server_time_ms(server: &RedisServer) -> i64 {
    let time = server.command(&["TIME"]).await;
    let part = |number: usize| time.items()[number].text().parse::<i64>().expect("TIME tells numbers");
    part(0) * 1000 + part(1) / 1000
}
