r"""Stand-in for the few names of AWS Glue's Python library that a job uses; it is on no path but a job's own.

AWS's own library is a layer over Java classes that exist on AWS Glue alone. The names and signatures here are those of
https://docs.aws.amazon.com/glue/latest/dg/aws-glue-programming-python.html; a name that is missing here raises
``AttributeError`` or ``ImportError``, an option that is not modelled ``NotImplementedError``: nothing is ignored.

Known deviations from AWS:

* Only S3 is a source, and only ``format="csv"`` without header and without quotes: every line becomes text columns.
* ``connection_options``: ``paths``, ``recurse``, ``maxBand`` and ``maxFilesInBand``. AWS does not document a default of
  ``maxFilesInBand``; here there is none. Files are never grouped (``groupFiles``).
* As Spark does, objects whose name or folder (below the path that is read) begins with ``_`` or ``.`` are passed over,
  and so are empty objects.
* A key that Hadoop's file systems cannot name (an empty, ``.`` or ``..`` segment) fails the read, by name.
* Lines end at ``\n``, ``\r\n`` and at a lone ``\r``, as with Spark's readers; AWS does not say what its own does.
* A line that is not UTF-8 arrives as the bytes that it is. AWS Glue only supports UTF-8 and may fail the run instead.
* ``toDF`` reads all of the objects at once, so an object that cannot be read (a cut gzip stream) fails there, with
  AWS's words ``Unable to parse file`` and the object's name. On AWS the failure comes at the first action.
* Compression is told by the key's ending (``.gz``), as Hadoop does.
* Bookmarks: the committed state is one JSON file, named by the environment variable ``GLUE_BOOKMARK_FILE``. It has no
  versions: a commit fails if the file is another one than the run started from, and names no numbers.
* ``getResolvedOptions`` adds ``job_bookmark_option`` to the requested names and none of the other reserved ones.
* ``get_logger`` returns a Python logger.
"""
