//! Requests of clients, each with its only correct response.

use std::ops::Range;

use fastrand::Rng;

use crate::support::memory_store::TestS3;
use crate::support::object::{LAST_MODIFIED, Object};
use crate::support::raw_http::{Response, request_head};

/// Keys and sizes: on both sides of the thresholds for one send (64 KiB) and for splicing (128
/// KiB).
const OBJECTS: [(&str, u64); 9] = [
    ("empty.bai", 0),
    ("one.csi", 1),
    ("index.bai", 10_007),
    ("gathered.tbi", 65_536),
    ("copied.crai", 100_003),
    ("spliced.vcf.gz", 262_147),
    ("reads.bam", 3_000_017),
    ("huge.bam", 1 << 30),
    ("huge.cram", (1 << 30) + 77),
];

/// How many of [`OBJECTS`], from the first, are small enough to be read whole; the others are huge.
const MODERATE: usize = 7;

/// Most ranges have at most two to this power of bytes; all smaller powers are equally likely.
const USUAL_BYTES_LOG2: f64 = 21.0;

/// A key that S3 denies.
const DENIED: &str = "denied.bam";

/// The objects that S3 has.
pub(crate) struct Bucket {
    objects: Vec<(&'static str, Object)>,
}

/// A request, and the response that it must get if nothing fails.
pub(crate) struct Exchange<'a> {
    method: &'static str,
    target: String,
    fields: Vec<(&'static str, String)>,
    /// `None` if the object does not exist or may not be read.
    object: Option<&'a Object>,
    status: u16,
    /// The bytes of the object that are the response's body.
    pub(crate) body: Range<u64>,
}

impl Bucket {
    /// Fills the store. No two objects have the same bytes at the same place.
    pub(crate) fn fill(s3: &TestS3) -> Bucket {
        let synthetic = |(index, (key, size)): (usize, (&'static str, u64))| {
            (key, Object::synthetic_from(index as u64 * 100_003, size))
        };
        let objects: Vec<_> = OBJECTS.into_iter().enumerate().map(synthetic).collect();
        for (key, object) in &objects {
            s3.put(key, object.clone());
        }
        s3.deny(DENIED);
        Bucket { objects }
    }

    /// Any exchange whose response has a few MiB at most.
    pub(crate) fn any_exchange(&self, rng: &mut Rng) -> Exchange<'_> {
        match rng.u32(..10) {
            0 => Exchange::missing("GET", rng),
            1 | 2 => Exchange::conditional(self.of_moderate_size(rng), rng),
            3 => Exchange::whole("GET", self.of_moderate_size(rng)),
            _ => Exchange::part(self.any(rng), rng),
        }
    }

    /// A part of any object.
    pub(crate) fn slice_exchange(&self, rng: &mut Rng) -> Exchange<'_> {
        Exchange::part(self.any(rng), rng)
    }

    /// An exchange whose response has no body.
    pub(crate) fn head_exchange(&self, rng: &mut Rng) -> Exchange<'_> {
        match rng.u32(..4) {
            0 => Exchange::missing("HEAD", rng),
            _ => Exchange::whole("HEAD", self.any(rng)),
        }
    }

    /// `bytes=N-` of a huge object, as sent by clients that do not know yet how much they will
    /// read.
    pub(crate) fn open_ended_exchange(&self, rng: &mut Rng) -> Exchange<'_> {
        let (key, object) = self.huge(rng);
        match rng.u64(..object.size()) {
            first if first.is_multiple_of(2) => Exchange::ranged((key, object), first, None),
            _ => Exchange::whole("GET", (key, object)),
        }
    }

    /// A range of this length of a huge object.
    pub(crate) fn long_exchange(&self, bytes: u64, rng: &mut Rng) -> Exchange<'_> {
        let (key, object) = self.huge(rng);
        let first = rng.u64(..object.size() - bytes);
        Exchange::ranged((key, object), first, Some(first + bytes - 1))
    }

    /// One exchange of each kind with each object.
    pub(crate) fn all_exchanges(&self, rng: &mut Rng) -> Vec<Exchange<'_>> {
        let mut all = vec![Exchange::missing("GET", rng), Exchange::missing("HEAD", rng)];
        for (index, (key, object)) in self.objects.iter().enumerate() {
            all.push(Exchange::whole("HEAD", (key, object)));
            all.push(Exchange::part((key, object), rng));
            if index < MODERATE {
                all.push(Exchange::whole("GET", (key, object)));
                all.push(Exchange::conditional((key, object), rng));
            }
        }
        all
    }

    fn any(&self, rng: &mut Rng) -> (&'static str, &Object) {
        let (key, object) = &self.objects[rng.usize(..self.objects.len())];
        (key, object)
    }

    fn of_moderate_size(&self, rng: &mut Rng) -> (&'static str, &Object) {
        let (key, object) = &self.objects[rng.usize(..MODERATE)];
        (key, object)
    }

    fn huge(&self, rng: &mut Rng) -> (&'static str, &Object) {
        let (key, object) = &self.objects[rng.usize(MODERATE..OBJECTS.len())];
        (key, object)
    }
}

impl<'a> Exchange<'a> {
    fn new(method: &'static str, key: &str, object: Option<&'a Object>, status: u16) -> Self {
        let target = format!("/files/{key}");
        Exchange { method, target, fields: Vec::new(), object, status, body: 0..0 }
    }

    fn whole(method: &'static str, (key, object): (&str, &'a Object)) -> Self {
        let body = if method == "HEAD" { 0..0 } else { 0..object.size() };
        Exchange { body, ..Exchange::new(method, key, Some(object), 200) }
    }

    fn missing(method: &'static str, rng: &mut Rng) -> Self {
        match rng.u32(..40) {
            0 => Exchange::new(method, DENIED, None, 403),
            number => Exchange::new(method, &format!("reads-{number}.bam.csi"), None, 404),
        }
    }

    /// `bytes=first-last`, or `bytes=first-` if `last` is `None`.
    fn ranged((key, object): (&str, &'a Object), first: u64, last: Option<u64>) -> Self {
        let exchange = Exchange::new("GET", key, Some(object), 206);
        let end = last.map_or(object.size(), |last| object.size().min(last + 1));
        let last = last.map(|last| last.to_string()).unwrap_or_default();
        let (status, body) = if first < end { (206, first..end) } else { (416, 0..0) };
        Exchange { status, body, ..exchange }.field("Range", format!("bytes={first}-{last}"))
    }

    fn part((key, object): (&str, &'a Object), rng: &mut Rng) -> Self {
        let size = object.size();
        let length = ((USUAL_BYTES_LOG2 * rng.f64()).exp2() as u64).min(size);
        let first = size - length;
        match rng.u32(..8) {
            // A range past the end, and one that ends past it.
            0 => Exchange::ranged((key, object), size + rng.u64(..3), None),
            1 => Exchange::ranged((key, object), first, Some(size + rng.u64(..1 << 40))),
            2 => Exchange::ranged((key, object), first, None),
            3 if length > 0 => {
                let exchange = Exchange::new("GET", key, Some(object), 206);
                let exchange = Exchange { body: first..size, ..exchange };
                exchange.field("Range", format!("bytes=-{length}"))
            }
            _ => {
                let first = rng.u64(..=first);
                Exchange::ranged((key, object), first, Some(first + length.max(1) - 1))
            }
        }
    }

    fn conditional((key, object): (&str, &'a Object), rng: &mut Rng) -> Self {
        let (size, e_tag, other) = (object.size(), object.quoted_e_tag(), "\"other\"".to_owned());
        let whole = Exchange::whole("GET", (key, object));
        let nothing =
            |status| Exchange { body: 0..0, status, ..Exchange::whole("GET", (key, object)) };
        let date = LAST_MODIFIED.to_owned();
        let range = |size: u64| format!("bytes={}-", size / 2);
        match rng.u32(..8) {
            0 => nothing(304).field("If-None-Match", e_tag),
            1 => nothing(304).field("If-Modified-Since", date),
            2 => nothing(412).field("If-Match", other),
            3 => whole.field("If-None-Match", other),
            4 => whole.field("If-Match", e_tag),
            5 => whole.field("If-Unmodified-Since", date),
            6 if size > 0 => {
                Exchange::ranged((key, object), size / 2, None).field("If-Range", e_tag)
            }
            _ => whole.field("Range", range(size)).field("If-Range", other),
        }
    }

    /// With one more header field.
    pub(crate) fn field(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    pub(crate) fn head(&self) -> String {
        let fields: Vec<_> =
            self.fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        request_head(self.method, &self.target, &fields)
    }

    /// The request's method, which decides whether a response has a body.
    pub(crate) fn method(&self) -> &'static str {
        self.method
    }

    /// Fails unless this is the head of the correct response.
    #[track_caller]
    pub(crate) fn check_head(&self, response: &Response) {
        let asked = (self.method, &self.target, &self.fields);
        assert_eq!(response.status, self.status, "{asked:?}: {response:?}");
        let Some(object) = self.object else { return };
        let size = object.size();
        if matches!(self.status, 200 | 206 | 304) {
            assert_eq!(response.field("etag"), Some(object.quoted_e_tag().as_str()), "{asked:?}");
            assert_eq!(response.field("last-modified"), Some(LAST_MODIFIED), "{asked:?}");
        }
        let content_range = match self.status {
            206 => Some(format!("bytes {}-{}/{size}", self.body.start, self.body.end - 1)),
            416 => Some(format!("bytes */{size}")),
            _ => None,
        };
        assert_eq!(response.field("content-range"), content_range.as_deref(), "{asked:?}");
        match (self.method, self.status) {
            ("HEAD", 200) => assert_eq!(response.content_length(), size, "{asked:?}"),
            (_, 200 | 206) => {
                assert_eq!(response.content_length(), self.body.end - self.body.start, "{asked:?}");
            }
            _ => {}
        }
    }

    /// Whether the correct response has bytes of the object.
    pub(crate) fn wants_bytes(&self) -> bool {
        self.method == "GET" && matches!(self.status, 200 | 206)
    }

    /// Fails unless these are the object's bytes at `start`.
    #[track_caller]
    pub(crate) fn check_bytes(&self, start: u64, bytes: &[u8]) {
        let object = self.object.expect("an exchange with an object");
        let (mut at, mut rest) = (start, bytes);
        while !rest.is_empty() {
            let expected = object.piece(at, rest.len() as u64);
            assert!(!expected.is_empty(), "bytes past the end of {}", self.target);
            let (came, others) = rest.split_at(expected.len());
            assert!(came == expected, "wrong bytes of {} at {at}", self.target);
            (at, rest) = (at + came.len() as u64, others);
        }
    }
}
