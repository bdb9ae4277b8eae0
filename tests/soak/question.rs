//! Requests of clients, each with the one correct response.

use std::ops::Range;

use fastrand::Rng;

use crate::support::memory_store::TestS3;
use crate::support::object::{LAST_MODIFIED, Object};
use crate::support::raw_http::{Response, request_head};

/// Keys and sizes: on either side of what is gathered (64 KiB) and what is spliced (128 KiB).
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

/// How many of them are small enough to be read whole often; the others are huge.
const MODERATE: usize = 7;

/// The most bytes that a question usually is about, as a power of two; all powers below are as
/// likely.
const USUAL_BYTES_LOG2: f64 = 21.0;

/// A key that S3 denies.
const DENIED: &str = "denied.bam";

/// The objects that S3 has.
pub(crate) struct Bucket {
    objects: Vec<(&'static str, Object)>,
}

/// A request, and the response that it must get when all is well.
pub(crate) struct Question<'a> {
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

    /// Any question that is answered with some MiB at most.
    pub(crate) fn any_question(&self, rng: &mut Rng) -> Question<'_> {
        match rng.u32(..10) {
            0 => Question::missing("GET", rng),
            1 | 2 => Question::conditional(self.of_moderate_size(rng), rng),
            3 => Question::whole("GET", self.of_moderate_size(rng)),
            _ => Question::part(self.any(rng), rng),
        }
    }

    /// A part of any object.
    pub(crate) fn slice_question(&self, rng: &mut Rng) -> Question<'_> {
        Question::part(self.any(rng), rng)
    }

    /// A question whose response has no body.
    pub(crate) fn head_question(&self, rng: &mut Rng) -> Question<'_> {
        match rng.u32(..4) {
            0 => Question::missing("HEAD", rng),
            _ => Question::whole("HEAD", self.any(rng)),
        }
    }

    /// `bytes=N-` of a huge object, as clients send it that do not know yet how much they will read.
    pub(crate) fn open_ended_question(&self, rng: &mut Rng) -> Question<'_> {
        let (key, object) = self.huge(rng);
        match rng.u64(..object.size()) {
            first if first.is_multiple_of(2) => Question::ranged((key, object), first, None),
            _ => Question::whole("GET", (key, object)),
        }
    }

    /// So many bytes of a huge object.
    pub(crate) fn long_question(&self, bytes: u64, rng: &mut Rng) -> Question<'_> {
        let (key, object) = self.huge(rng);
        let first = rng.u64(..object.size() - bytes);
        Question::ranged((key, object), first, Some(first + bytes - 1))
    }

    /// One question of each kind about each object.
    pub(crate) fn all_questions(&self, rng: &mut Rng) -> Vec<Question<'_>> {
        let mut all = vec![Question::missing("GET", rng), Question::missing("HEAD", rng)];
        for (index, (key, object)) in self.objects.iter().enumerate() {
            all.push(Question::whole("HEAD", (key, object)));
            all.push(Question::part((key, object), rng));
            if index < MODERATE {
                all.push(Question::whole("GET", (key, object)));
                all.push(Question::conditional((key, object), rng));
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

impl<'a> Question<'a> {
    fn new(method: &'static str, key: &str, object: Option<&'a Object>, status: u16) -> Self {
        let target = format!("/files/{key}");
        Question { method, target, fields: Vec::new(), object, status, body: 0..0 }
    }

    fn whole(method: &'static str, (key, object): (&str, &'a Object)) -> Self {
        let body = if method == "HEAD" { 0..0 } else { 0..object.size() };
        Question { body, ..Question::new(method, key, Some(object), 200) }
    }

    fn missing(method: &'static str, rng: &mut Rng) -> Self {
        match rng.u32(..40) {
            0 => Question::new(method, DENIED, None, 403),
            number => Question::new(method, &format!("reads-{number}.bam.csi"), None, 404),
        }
    }

    /// `bytes=first-last`, or `bytes=first-` if `last` is `None`.
    fn ranged((key, object): (&str, &'a Object), first: u64, last: Option<u64>) -> Self {
        let question = Question::new("GET", key, Some(object), 206);
        let end = last.map_or(object.size(), |last| object.size().min(last + 1));
        let last = last.map(|last| last.to_string()).unwrap_or_default();
        let (status, body) = if first < end { (206, first..end) } else { (416, 0..0) };
        Question { status, body, ..question }.field("Range", format!("bytes={first}-{last}"))
    }

    fn part((key, object): (&str, &'a Object), rng: &mut Rng) -> Self {
        let size = object.size();
        let length = ((USUAL_BYTES_LOG2 * rng.f64()).exp2() as u64).min(size);
        let first = size - length;
        match rng.u32(..8) {
            // Past the end, and up to a place behind it.
            0 => Question::ranged((key, object), size + rng.u64(..3), None),
            1 => Question::ranged((key, object), first, Some(size + rng.u64(..1 << 40))),
            2 => Question::ranged((key, object), first, None),
            3 if length > 0 => {
                let question = Question::new("GET", key, Some(object), 206);
                let question = Question { body: first..size, ..question };
                question.field("Range", format!("bytes=-{length}"))
            }
            _ => {
                let first = rng.u64(..=first);
                Question::ranged((key, object), first, Some(first + length.max(1) - 1))
            }
        }
    }

    fn conditional((key, object): (&str, &'a Object), rng: &mut Rng) -> Self {
        let (size, e_tag, other) = (object.size(), object.quoted_e_tag(), "\"other\"".to_owned());
        let whole = Question::whole("GET", (key, object));
        let nothing =
            |status| Question { body: 0..0, status, ..Question::whole("GET", (key, object)) };
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
                Question::ranged((key, object), size / 2, None).field("If-Range", e_tag)
            }
            _ => whole.field("Range", range(size)).field("If-Range", other),
        }
    }

    /// With one more header field.
    pub(crate) fn field(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    /// The request.
    pub(crate) fn head(&self) -> String {
        let fields: Vec<_> =
            self.fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        request_head(self.method, &self.target, &fields)
    }

    /// The request's method, which decides whether a response has a body.
    pub(crate) fn method(&self) -> &'static str {
        self.method
    }

    /// Fails unless this head is part of the right response.
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

    /// Whether the right response has bytes of the object.
    pub(crate) fn wants_bytes(&self) -> bool {
        self.method == "GET" && matches!(self.status, 200 | 206)
    }

    /// Fails unless these are the object's bytes at `start`.
    #[track_caller]
    pub(crate) fn check_bytes(&self, start: u64, bytes: &[u8]) {
        let object = self.object.expect("who asks for bytes asks for an object");
        let (mut at, mut rest) = (start, bytes);
        while !rest.is_empty() {
            let expected = object.piece(at, rest.len() as u64);
            assert!(!expected.is_empty(), "bytes behind the end of {}", self.target);
            let (came, others) = rest.split_at(expected.len());
            assert!(came == expected, "other bytes than those of {} at {at}", self.target);
            (at, rest) = (at + came.len() as u64, others);
        }
    }
}
